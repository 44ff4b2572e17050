-- The limits that hold now: the least of what was told, what headers say, and what 429s have taught.

local function learnt_limit(name)
  local learnt = state.learnt[name]
  if not learnt then return math.huge end
  -- Climbs slowly, then faster: 0.5 % after a minute at the limit, 12 % after five; forty times that after a mere guess.
  return learnt.limit * (1 + (learnt.guessed and 0.2 or 0.005) * (learnt.climb / WINDOW) ^ 2)
end

local function given_limit(name)
  return math.min(ask.told[name] or math.huge, state.header[name] or math.huge)
end

local function find_limits()
  local limits = {}
  for _, name in ipairs(RESOURCES) do
    local given, learnt = given_limit(name), learnt_limit(name)
    if learnt >= given then
      state.learnt[name], learnt = nil, math.huge
    end
    limits[name] = math.min(given, learnt)
  end
  return limits
end

local limits = find_limits()

-- What others took from the same account as far as headers show it; it leaves the server's log within a window.
local function foreign(name)
  local seen = state.foreign[name]
  return seen and seen.amount * math.max(0, 1 - (now - seen.at) / WINDOW) or 0
end
