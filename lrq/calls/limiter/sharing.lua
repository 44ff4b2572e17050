-- Who gets how much: runs share equally, then the processes within a run (start-time fair queueing, Goyal 1996).
-- An entry is one run in one process: its `served` counts calls, each weighted by the processes that share its run.

local GRACE = 0.5 -- seconds a process may be late for its poll before others stop waiting for it

local function load_owners()
  local owners, gone = {}, {}
  local raw = redis.call('HGETALL', KEYS[2])
  for i = 1, #raw, 2 do
    local owner = cmsgpack.unpack(raw[i + 1])
    if now > owner.lease then gone[#gone + 1] = raw[i] else owners[raw[i]] = owner end
  end
  if #gone > 0 then redis.call('HDEL', KEYS[2], unpack(gone)) end
  return owners
end

local owners = load_owners()
local me = owners[ask.owner] or {entries = {}, seq = -1, held = 0}
owners[ask.owner] = nil -- from here on: the others

-- How many processes wait with each run, for `what`: 'rate', 'slot' or either; and how many such runs there are.
local function count_waiting(what)
  local processes, runs = {}, 0
  local function count(run)
    if not processes[run] then runs = runs + 1 end
    processes[run] = (processes[run] or 0) + 1
  end
  for _, owner in pairs(owners) do
    for run, entry in pairs(owner.entries) do
      if entry.waits and entry.waits == (what or entry.waits) then count(run) end
    end
  end
  for _, want in ipairs(ask.wants) do count(want.run) end
  return processes, runs
end

-- The least that anyone who waits for the rate, and is there, has been served.
local function least_served()
  local least = math.huge
  for _, owner in pairs(owners) do
    if now <= owner.due + GRACE then
      for _, entry in pairs(owner.entries) do
        if entry.waits == 'rate' then least = math.min(least, entry.served) end
      end
    end
  end
  return least
end

-- Nobody saves up while away: who begins to wait stands no further back than those who wait already, and processes
-- of one run stand apart, so that runs alternate.
local function join(least)
  local own = math.huge
  for _, want in ipairs(ask.wants) do
    local entry = me.entries[want.run]
    if entry and entry.waits then own = math.min(own, entry.served) end
  end
  local floor = math.max(state.served, own < math.huge and own or 0)
  local processes = count_waiting()
  for _, want in ipairs(ask.wants) do
    local entry = me.entries[want.run] or {served = 0}
    if not entry.waits then entry.served = math.max(entry.served, floor + processes[want.run] - 1) end
    me.entries[want.run] = entry
    own = math.min(own, entry.served)
  end
  if math.min(own, least) < math.huge then state.served = math.max(state.served, math.min(own, least)) end
end

local function weight_of(owner_entries, waits, processes, runs)
  local weight = 0
  for run, entry in pairs(owner_entries) do
    if waits(run, entry) then weight = weight + 1 / (runs * processes[run]) end
  end
  return weight
end

-- My part of the calls in flight. Those who do not wait keep what they hold, the rest is divided by weight;
-- fractions are rounded so that the parts add up, and take turns every two seconds.
local function my_slots(concurrency)
  if concurrency == math.huge then return 1e9 end
  local processes, runs = count_waiting('slot')
  local wanted = {}
  for _, want in ipairs(ask.wants) do wanted[want.run] = true end
  local names, weights, left, held = {ask.owner}, {}, concurrency, 0
  weights[ask.owner] = weight_of(me.entries, function(run) return wanted[run] end, processes, runs)
  for name, owner in pairs(owners) do
    held = held + owner.held
    local weight = weight_of(owner.entries, function(_, entry) return entry.waits == 'slot' end, processes, runs)
    if weight > 0 then
      names[#names + 1], weights[name] = name, weight
    else
      left = left - owner.held
    end
  end
  table.sort(names)
  local sum = math.floor(now / (2 * SECOND)) * 0.618034 % 1
  for _, name in ipairs(names) do
    local before = math.floor(sum + 1e-9)
    sum = sum + math.max(0, left) * weights[name]
    if name == ask.owner then
      return math.max(0, math.min(math.floor(sum + 1e-9) - before, concurrency - held))
    end
  end
end
