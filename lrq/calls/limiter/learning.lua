-- What replies teach: headers name the limits, 429s show where they are.

-- A limit whose reset lies beyond the window counts over another one (a day): not ours to pace.
local function heed_headers(name, seen)
  if seen.reset and seen.reset > WINDOW + SECOND then
    state.header[name], state.foreign[name] = nil, nil
    return
  end
  state.header[name] = math.max(1, seen.limit)
  if seen.remaining then
    -- Ours at the grant, without what the slack adds; a fiftieth is noise: ways differ.
    local others = seen.limit - seen.remaining - seen.own * WINDOW / (WINDOW + SLACK + BUCKET)
    state.foreign[name] = {amount = others > 0.02 * seen.limit and others or 0, at = now}
  end
end

-- Which limit a 429 speaks of where its headers do not say: the one of which most is used.
local function fullest()
  local best, most = 'requests', -1
  for _, name in ipairs(RESOURCES) do
    local part = state.sum[name] / limits[name]
    if part > most then best, most = name, part end
  end
  return best
end

-- The log itself as a measure of the limit: true where the server, like the log, counts over a window.
local function counted_limit(name, after)
  local age = now - (state.busy or now)
  if age < WINDOW - after - 2 * SECOND then return nil end -- its wait does not fit what we hold
  local said_so = after >= 5 * SECOND
  if said_so or state.sum[name] >= 0.45 * limits[name] then return 0.99 * state.sum[name] end
end

-- Between two 429s a bucket was filled and emptied: what came through is the rate of its refill.
local function refilled_limit(name, limit)
  local cut = state.cut
  if not cut or now - cut.at >= WINDOW then return nil end
  local refill = (state.given[name] - cut.given[name]) / (now - cut.at) * WINDOW
  if refill > 0.7 * limit then return refill end
end

local function lower_limit(name, after)
  local limit = limits[name]
  if limit == math.huge then
    local age = math.max(now - (state.busy or now), SECOND)
    limit = state.sum[name] / math.min(age, WINDOW) * WINDOW
  end
  local measured = math.min(counted_limit(name, after) or math.huge, refilled_limit(name, limit) or math.huge)
  local guessed = measured == math.huge
  local lower = math.min(0.99 * limit, guessed and 0.7 * limit or measured)
  state.learnt[name] = {limit = math.max(1, lower), guessed = guessed, climb = 0} -- climb: seconds it held us up
  limits = find_limits()
end

local function pause_for(seconds)
  state.paused = math.max(state.paused, now + math.min(seconds, 600 * SECOND))
  for _, name in ipairs(RESOURCES) do
    state.free_at[name] = math.max(state.free_at[name], state.paused) -- no burst when it ends
  end
end

-- One cut for one event: calls granted before the last cut say nothing new, and where next to nothing was granted
-- since then, the rate is not to blame. If nothing was answered either, the pause grows instead.
local function heed_throttle(seen)
  local cut = state.cut
  if cut and seen.bucket <= cut.bucket then
    if seen.after then pause_for(seen.after) end
    return
  end
  if seen.explained then return pause_for(seen.after or SECOND) end -- the headers' limit holds: others filled it
  local name = seen.name or fullest()
  local granted = cut and state.given[name] - cut.given[name] or math.huge
  if granted <= 0 or granted < limits[name] / 60 and limits[name] < math.huge then
    state.streak = state.replies == cut.replies and state.streak + 1 or 0
  else
    state.streak = 0
    lower_limit(name, seen.after or SECOND)
  end
  pause_for(math.max(seen.after or SECOND, state.streak > 0 and 2 ^ math.min(state.streak, 6) * SECOND or 0))
  local given = {requests = state.given.requests, tokens = state.given.tokens}
  state.cut = {bucket = bucket_of(now), at = now, given = given, replies = state.replies}
end
