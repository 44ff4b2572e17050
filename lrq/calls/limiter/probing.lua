-- An endpoint that only fails is probed by one call at a time, with growing pauses.

local FEWEST, SHORTEST = 7, 1             -- failures in a row, and seconds, before an endpoint counts as failing: before
                                          -- a call that is alone has used up its eight tries
local FIRST, GROWTH, LONGEST = 0.5, 1.6, 30 -- seconds between probes: 0.5, 0.8, 1.3 … 30

local function heed_answers(count)
  if count == 0 then return end
  if state.probing then state.ramp = now end
  state.failures, state.failing, state.probing = 0, nil, nil
end

local function heed_failures(seen)
  state.failures = state.failures + seen.count
  state.failing = state.failing or now
  local probing = state.probing
  if probing and seen.bucket > probing.bucket then
    probing.pause = math.min(LONGEST, probing.pause * GROWTH)
    probing.at, probing.bucket = now + probing.pause, bucket_of(now)
  elseif not probing and state.failures >= FEWEST and now - state.failing >= SHORTEST then
    state.probing = {pause = FIRST, at = now + FIRST, bucket = bucket_of(now)}
  end
end
