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
  for name, seen in pairs(report.headers) do heed_headers(name, seen) end
  limits = find_limits()
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

-- The next of my calls: of the run least served, unless others are too far behind it.
local function next_want(least, ahead, processes)
  local best
  for _, want in ipairs(ask.wants) do
    if want.taken < #want.costs then
      if not best or me.entries[want.run].served < me.entries[best.run].served then best = want end
    end
  end
  if best and me.entries[best.run].served > least + ahead + processes[best.run] then return nil, 'turn' end
  return best
end

-- Seconds until a call of this cost may go, and whether it is a rate that holds it.
local function wait_of(cost)
  if now < state.paused then return state.paused - now end
  local wait = 0
  for name, amount in pairs({requests = 1, tokens = cost}) do
    local this = wait_for(name, amount)
    if this > 0 then state.climb[name] = state.climb[name] + math.min(since_seen, SECOND) end
    wait = math.max(wait, this)
  end
  return wait
end

local function grant(want, weight)
  local cost = want.costs[want.taken + 1]
  want.taken, want.tokens = want.taken + 1, want.tokens + cost
  local entry = me.entries[want.run]
  entry.served, entry.weight = entry.served + weight, weight
  enter(bucket_of(now), 'requests', 1)
  enter(bucket_of(now), 'tokens', cost)
end

-- Grants up to `most` calls. Returns how many, what held up the rest ('rate' or 'slot'), and for how long.
local function grant_all(most, least)
  local processes, runs = count_waiting('rate')
  local ahead = 0.5 * state.sum.requests / WINDOW / math.max(runs, 1) -- half a second of one run's share
  local granted = 0
  while granted < most do
    local want, turn = next_want(least, ahead, processes)
    if turn then return granted, 'rate', TICK end
    if not want then return granted end
    local wait = wait_of(want.costs[want.taken + 1])
    if wait > 0 then return granted, 'rate', wait end
    grant(want, processes[want.run])
    granted = granted + 1
  end
  return granted, 'slot', TICK
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

local function count_owners()
  local count = 1
  for _ in pairs(owners) do count = count + 1 end
  return count
end

-- When to come again: the more processes wait, the longer each, so that their polls do not outnumber the calls.
local function next_poll(why, wait)
  local count = count_owners()
  if why == 'rate' then return math.min(math.max(wait, TICK * math.max(1, count / 8)), math.max(1, count / 50)) end
  if why == 'slot' then return TICK * math.min(2, math.max(1, count / 40)) end
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
  save_state()
  redis.call('HSET', KEYS[2], ask.owner, cmsgpack.pack(me))
  redis.call('EXPIRE', KEYS[2], 2 * LEASE)
  redis.call('EXPIRE', KEYS[3], math.ceil(2 * (WINDOW + SLACK)))
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
  note_entries(why)
  local usable = math.min(slots, ask.in_flight + (why == 'rate' and granted or ask.waiting))
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
