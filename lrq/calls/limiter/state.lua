-- What a lane remembers, and the clock. The parts of this script are joined in the order that script.py names.
-- KEYS: the lane's state, its owners, its log, the names of all lanes. ARGV[1]: one process's report and wishes, JSON.
local ask = cjson.decode(ARGV[1])

local RESOURCES = {'requests', 'tokens'}
local WINDOW = ask.window   -- seconds over which a limit counts
local SLACK = ask.slack     -- seconds that calls may differ in their way from grant to server
local BUCKET = WINDOW / 600 -- the log's grain
local QUANTUM = 0.25        -- seconds of traffic in one grant at most
local TICK = 0.1            -- seconds between two polls of a process that waits
local LEASE = 12            -- seconds a process may be silent before its calls in flight count as gone
local SECOND = WINDOW / 60  -- a second, unless the window was shortened
local KEEP = 86400          -- seconds a lane that nobody uses is remembered

local function clock()
  local time = redis.call('TIME')
  return ask.now or time[1] + time[2] / 1e6
end

local function bucket_of(time)
  return math.floor(time / BUCKET)
end

local function new_state(now)
  return {
    born = now, seen = now, tail = bucket_of(now),
    sum = {requests = 0, tokens = 0},    -- in the log: granted within the window, corrected when settled
    given = {requests = 0, tokens = 0},  -- the same since birth
    free_at = {requests = now, tokens = now}, -- the rate's theoretical arrival time
    header = {}, learnt = {}, foreign = {},
    paused = 0, streak = 0, replies = 0, served = 0, failures = 0,
  }
end

local function load_state()
  local now = clock()
  local raw = redis.call('GET', KEYS[1])
  local state = raw and cmsgpack.unpack(raw)
  if state and state.seen - now < WINDOW and (state.sum.requests == 0 or redis.call('EXISTS', KEYS[3]) == 1) then
    return state, math.max(now, state.seen)
  end
  redis.call('DEL', KEYS[2], KEYS[3]) -- lost in part or whole, or written under another clock
  return new_state(now), now
end

local state, now = load_state()
ask.told = ask.told or state.told or {}
local since_seen = now - state.seen
