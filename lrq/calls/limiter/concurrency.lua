-- How many calls may be in flight. Where neither a number nor a rate is known it is found by climbing: the best
-- concurrency n has the most power, throughput / n^0.2 (after Kleinrock 1979), so n grows while a tenth more of
-- calls brings at least 2 % more throughput and falls back where only the waiting grows. The first climb runs: each
-- reply lets two more calls begin, which triples n within a latency, as long as each latency's time brings more.

local START, MOST = 24, 4096
local MORE = 1.3 -- that the throughput of a run's stretch must be to the last one's
local PRICE = 0.2
local LARGEST, SMALLEST = 2, 1.15 -- factors of a step

local function new_climb()
  return {
    now = START, best = START, step = LARGEST, up = true, changed = now, count = 0, work = 0, time = 0, running = {},
  }
end

local function measure_anew(climb)
  climb.changed, climb.count, climb.work, climb.time = now, 0, 0, 0
end

local function try_next(climb)
  local factor = climb.up and climb.step or 1 / climb.step
  local next = math.floor(climb.best * factor + 0.5)
  if next == climb.best then next = climb.best + (climb.up and 1 or -1) end
  climb.now = math.min(MOST, math.max(1, next))
  if climb.now == climb.best then climb.up = not climb.up end
end

local function judge_trial(climb, power)
  if not climb.power then
    climb.power = power -- of `best`, to compare the next trial with
    return try_next(climb)
  end
  if power > climb.power * 1.01 then
    climb.best, climb.power = climb.now, power
    climb.step = math.min(LARGEST, climb.step ^ 1.4)
    return try_next(climb)
  end
  climb.now, climb.power, climb.up = climb.best, nil, not climb.up
  climb.step = math.max(SMALLEST, math.sqrt(climb.step))
end

-- A server that refuses or fails had enough before.
local function stop_running()
  local climb = state.concurrency
  if not climb or not climb.running then return end
  climb.running, climb.best = nil, math.max(START, math.floor(climb.now / 2))
  climb.now = climb.best
  measure_anew(climb)
end

-- A stretch lasts for a latency: what ends in it was begun in the one before, with `before` calls in flight.
local function run_on(climb, done, wanting)
  local run = climb.running
  if not run.at then
    run.at, run.work, run.count, run.now, run.before = now, 0, 0, climb.now, climb.now -- first replies: a stretch begins
    return
  end
  run.work, run.count = run.work + done.work, run.count + done.count
  if wanting then climb.now = math.min(MOST, climb.now + 2 * done.count) end
  if run.count < START / 2 or now - run.at < climb.latency then return end
  local rate = run.work / (now - run.at)
  if run.rate and run.now > 1.5 * run.before and rate < MORE * run.rate then
    climb.running, climb.best, climb.now = nil, run.before, run.before
    return measure_anew(climb)
  end
  climb.best = climb.now
  climb.running = {at = now, work = 0, count = 0, rate = rate, before = run.now, now = climb.now}
  if climb.now == MOST then
    climb.running = nil
    measure_anew(climb)
  end
end

-- Throughput by Little's law: calls in flight over their mean latency, in tokens.
local function climb_on(done, wanting)
  local climb = state.concurrency
  if done.count == 0 then return end
  climb.latency = (climb.latency or 0) + (done.time / done.count - (climb.latency or 0)) * (climb.latency and 0.3 or 1)
  if climb.running then return run_on(climb, done, wanting) end
  if not wanting then return end -- nobody waits: this says nothing about more
  if now - climb.changed < 1.5 * climb.latency then return end -- calls begun before the change
  climb.count, climb.work, climb.time = climb.count + done.count, climb.work + done.work, climb.time + done.time
  local enough = climb.step == LARGEST and math.max(16, climb.now / 2) or math.max(32, 2 * climb.now)
  if climb.count < enough then return end
  judge_trial(climb, climb.now ^ (1 - PRICE) * climb.work / climb.time)
  measure_anew(climb)
end

local function is_rate_known()
  for _, name in ipairs(RESOURCES) do
    if given_limit(name) < math.huge then return true end
  end
  return false
end

local function find_concurrency()
  local most = ask.told.concurrency
  if not most then
    if is_rate_known() then
      state.concurrency = nil
      most = math.huge
    else
      state.concurrency = state.concurrency or new_climb()
      most = state.concurrency.now
    end
  end
  if state.probing then return now >= state.probing.at and 1 or 0 end
  -- A lane that was lost or failed fills up in seconds: the calls in flight of others are not all known yet.
  local ramp = state.ramp or most < math.huge and state.born
  return ramp and math.min(most, math.floor(4 * 4 ^ math.min(now - ramp, 20))) or most
end
