-- The log: what was granted in each bucket of the last window and its slack; and the rate that keeps grants even.

local function drop_old()
  local edge = bucket_of(now - WINDOW - SLACK)
  if edge <= state.tail then return end
  if edge > bucket_of(state.seen) then
    redis.call('DEL', KEYS[3])
    state.sum = {requests = 0, tokens = 0}
  else
    local fields = {}
    for bucket = state.tail, edge - 1 do
      fields[#fields + 1] = 'requests' .. bucket
      fields[#fields + 1] = 'tokens' .. bucket
    end
    for i, amount in ipairs(redis.call('HMGET', KEYS[3], unpack(fields))) do
      local name = i % 2 == 1 and 'requests' or 'tokens'
      state.sum[name] = state.sum[name] - (amount or 0)
    end
    redis.call('HDEL', KEYS[3], unpack(fields))
  end
  state.tail = edge
  if state.sum.requests <= 0 then state.busy = nil end
end

-- Until a whole window is behind us the server's log may hold more than ours: then the slower rate.
local function rate(name)
  local cold = now - state.born < WINDOW + SLACK
  return limits[name] / (cold and WINDOW + SLACK + BUCKET or WINDOW)
end

local entered = {} -- field of the log → amount, written at the end

local function enter(bucket, name, amount)
  if amount == 0 then return end
  local field = name .. bucket
  entered[field] = (entered[field] or 0) + amount
  state.sum[name] = state.sum[name] + amount
  state.given[name] = state.given[name] + amount
  local from = math.max(state.free_at[name], now - QUANTUM)
  state.free_at[name] = math.max(from + amount / rate(name), now - QUANTUM)
end

local function write_log()
  for field, amount in pairs(entered) do redis.call('HINCRBY', KEYS[3], field, amount) end
  redis.call('EXPIRE', KEYS[3], math.ceil(2 * (WINDOW + SLACK)))
end

-- Seconds until `amount` may be granted; 0: now. One that exceeds the limit goes when the log is empty.
local function wait_for(name, amount)
  if limits[name] == math.huge then return 0 end
  if state.free_at[name] > now then return state.free_at[name] - now end
  if state.sum[name] > 0 and state.sum[name] + foreign(name) + amount > limits[name] then return TICK end
  return 0
end
