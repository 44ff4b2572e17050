-- One poll: take in the report, grant what may go now, say when to come again.

-- A report that was sent twice counts once.
local function take_in(report)
  if ask.seq == me.seq then return end
  me.seq = ask.seq
  for _, one in ipairs(report.corrections) do
    if one.bucket >= state.tail then
      enter(one.bucket, 'requests', one.requests)
      enter(one.bucket, 'tokens', one.tokens)
    end
  end
  for _, one in ipairs(report.unused) do
    local entry = me.entries[one.run]
    if entry then entry.served = entry.served - one.calls * (entry.weight or 1) end
  end
  state.replies = state.replies + report.done.count
  for name, seen in pairs(report.headers) do heed_headers(name, seen) end
  limits = find_limits()
  if report.throttled or report.failed then stop_running() end
  if report.throttled then heed_throttle(report.throttled) end
  if report.failed then heed_failures(report.failed) end
  heed_answers(report.answered)
end

local function is_anyone_short_of_slots()
  for _, entries in pairs(owners) do
    for _, entry in pairs(entries.entries) do
      if entry.waits == 'slot' then return true end
    end
  end
  for _, entry in pairs(me.entries) do
    if entry.waits == 'slot' then return true end
  end
  return false
end

local function count_owners()
  local count = 1
  for _ in pairs(owners) do count = count + 1 end
  return count
end

-- Seconds between two polls of a process that waits for the rate: the more processes, the longer each, so that polls
-- do not outnumber calls.
local function interval()
  return TICK * math.max(1, count_owners() / 8)
end

-- The next of my calls: of the run least served.
local function next_want()
  local best
  for _, want in ipairs(ask.wants) do
    if want.taken < #want.costs then
      if not best or me.entries[want.run].served < me.entries[best.run].served then best = want end
    end
  end
  return best
end

-- Seconds until a call of this cost may go.
local function wait_of(cost)
  if now < state.paused then return state.paused - now end
  return math.max(wait_for('requests', 1), wait_for('tokens', cost))
end

local function note_climb(cost)
  for name, amount in pairs({requests = 1, tokens = cost}) do
    local learnt = state.learnt[name]
    if learnt and now >= state.paused and wait_for(name, amount) > 0 then
      learnt.climb = learnt.climb + math.min(since_seen, SECOND)
    end
  end
end

local function grant(want, cost, weight)
  want.taken, want.tokens = want.taken + 1, want.tokens + cost
  local entry = me.entries[want.run]
  entry.served, entry.weight = entry.served + weight, weight
  enter(bucket_of(now), 'requests', 1)
  enter(bucket_of(now), 'tokens', cost)
end

-- Grants up to `most` calls. Returns how many, what held up the rest ('rate' or 'slot'), and for how long.
local function grant_all(most, least)
  local processes, runs = count_waiting()
  local age = math.min(WINDOW, math.max(SECOND, now - (state.busy or now)))
  local per_second = state.sum.requests / age / math.max(runs, 1) -- one run's share
  local ahead = math.max(0.5, 4 * interval()) * per_second
  local granted = 0
  while true do
    local want = next_want()
    if not want then return granted end
    if granted >= most then return granted, 'slot', TICK end
    local cost = want.costs[want.taken + 1]
    local wait = wait_of(cost)
    local is_our_turn = me.entries[want.run].served <= least + ahead -- else others are too far behind
    if wait > 0 or not is_our_turn then
      note_climb(cost)
      return granted, 'rate', wait
    end
    grant(want, cost, processes[want.run])
    granted = granted + 1
  end
end

-- Where nobody waits: a few more for calls that will come before the next poll, so that they need no poll of their own.
local function grant_spare(most)
  for _, owner in pairs(owners) do
    for _, entry in pairs(owner.entries) do
      if entry.waits then return 0 end
    end
  end
  local granted = 0
  for _, want in ipairs(ask.wants) do
    for _ = 1, math.min(want.spare, most - granted) do
      if wait_of(want.each) > 0 then return granted end
      grant(want, want.each, 1)
      granted = granted + 1
    end
  end
  return granted
end

local function note_entries(why)
  local wanted = {}
  for _, want in ipairs(ask.wants) do
    wanted[want.run] = want.waiting > want.taken and why or nil
  end
  for run, entry in pairs(me.entries) do
    entry.waits = wanted[run]
    if not entry.waits and entry.served <= state.served then me.entries[run] = nil end -- `join` would say the same
  end
end

local function count_calls(name)
  local count = ask[name]
  for _, owner in pairs(owners) do count = count + owner[name] end
  return count
end

local function next_poll(why, wait)
  local longest = math.max(1, count_owners() / 50)
  if state.probing and now < state.probing.at then return math.min(math.max(state.probing.at - now, TICK), longest) end
  if why == 'rate' then return math.min(math.max(wait, interval()), longest) end
  if why == 'slot' then return math.min(interval(), 2 * TICK) end
  return 0
end

local function finite(number)
  return number < math.huge and number or nil
end

local function view(concurrency)
  return {
    requests = {limit = finite(limits.requests), used = state.sum.requests, learnt = state.learnt.requests and true},
    tokens = {limit = finite(limits.tokens), used = state.sum.tokens, learnt = state.learnt.tokens and true},
    concurrency = finite(concurrency), in_flight = count_calls('in_flight'), waiting = count_calls('waiting'),
    paused = math.max(0, state.paused - now), probing = state.probing and math.max(0, state.probing.at - now),
  }
end

local function save_state()
  state.seen, state.told = now, ask.told
  redis.call('SET', KEYS[1], cmsgpack.pack(state), 'EX', KEEP)
end

local function save(due)
  if not me.lease then redis.call('SADD', KEYS[4], ask.lane) end
  me.due, me.lease, me.waiting, me.in_flight = now + due, now + LEASE, ask.waiting, ask.in_flight
  if state.sum.requests > 0 then state.busy = state.busy or now end
  write_log()
  save_state()
  redis.call('HSET', KEYS[2], ask.owner, cmsgpack.pack(me))
  redis.call('EXPIRE', KEYS[2], 2 * LEASE)
end

local function poll()
  drop_old()
  take_in(ask.report)
  local short = is_anyone_short_of_slots()
  local concurrency = find_concurrency()
  if state.concurrency and not state.probing then climb_on(ask.report.done, short) end
  local least = least_served()
  join(least)
  local slots = my_slots(concurrency)
  local most = math.min(slots, ask.in_flight + ask.waiting) - ask.in_flight
  if not state.probing then most = most + math.min(ask.soon, slots) end
  local granted, why, wait = grant_all(most, least)
  if not why and not state.probing then granted = granted + grant_spare(slots - ask.in_flight - granted) end
  note_entries(why)
  local usable = math.min(slots, ask.in_flight + (why == 'rate' and granted or math.max(granted, ask.waiting)))
  me.held = math.max(usable, ask.in_flight)
  local due = next_poll(why, wait)
  save(due)
  local grants = {}
  for i, want in ipairs(ask.wants) do grants[i] = {want.run, want.taken, want.tokens} end
  return cjson.encode({
    grants = grants, slots = usable, bucket = bucket_of(now), wait = due, held_up = why,
    own = {requests = state.sum.requests, tokens = state.sum.tokens}, view = view(concurrency),
  })
end

-- The lane as it stands, for those who only look.
local function look()
  if state.born == now then return false end
  drop_old()
  local seen = view(find_concurrency())
  save_state()
  return cjson.encode(seen)
end
