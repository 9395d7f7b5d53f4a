-- Decides about the limits of one request in one atomic step; memory.py is the same in Python.
-- ARGV: operation, lease, amount, and for each key: kind, capacity, seconds, warm-up, cold factor and cost in one text.
-- Returns the number of the limit that refuses (0: none), the seconds until it admits, and the remainder of each limit.
local DAY, LEASE, ROUNDING = 86400, 60, 0.0001
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local operation, lease, amount = ARGV[1], ARGV[2], tonumber(ARGV[3])
local limits = {}

-- A stored counter: when the bucket is full again, when its warm-up began and when that is forgotten; or the number of
-- the window, its count, and that of the window before.
local function read(index)
  local kind, capacity, seconds, warm_up, cold_factor, cost =
    string.match(ARGV[3 + index], '^(%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  local l = {key = KEYS[index], kind = kind, capacity = tonumber(capacity), seconds = tonumber(seconds),
    warm_up = tonumber(warm_up), cold_factor = tonumber(cold_factor), cost = tonumber(cost)}
  if kind == 'parallel' then
    redis.call('ZREMRANGEBYSCORE', l.key, '-inf', string.format('%.6f', now))
    l.count = redis.call('ZCARD', l.key)
    return l
  end
  local first, second, third
  local stored = redis.call('GET', l.key)
  if stored then first, second, third = string.match(stored, '^(%S+) (%S+) (%S+)$') end
  first, second, third = tonumber(first), tonumber(second), tonumber(third)
  if kind == 'bucket' then
    l.at, l.since, l.expires, l.interval = first or 0, second or now, third or 0, l.seconds
    if l.warm_up > 0 then
      if now >= l.expires then l.since = now end
      local warmth = math.min(1, (now - l.since) / l.warm_up)
      l.interval = l.seconds * (l.cold_factor - (l.cold_factor - 1) * warmth)
    end
    return l
  end
  l.at, l.count, l.previous = first or 0, second or 0, third or 0
  l.length = kind == 'window' and l.seconds or DAY
  local number = math.floor(now / l.length)
  if number ~= l.at then
    l.previous = (number == l.at + 1 and kind == 'window') and l.count or 0
    l.at, l.count = number, 0
  end
  l.overlap = kind == 'window' and 1 - (now % l.length) / l.length or 0
  l.used = l.count + l.previous * l.overlap
  return l
end

local function missing(l)
  if l.kind == 'parallel' then return l.count + 1 <= l.capacity and 0 or 1 end
  local cost = math.max(l.cost, 1)
  if l.kind == 'bucket' then
    local late = math.max(l.at, now) + cost * l.interval - now - l.capacity * l.seconds
    return late > ROUNDING and late or 0
  end
  if l.used + cost <= l.capacity + ROUNDING then return 0 end
  local rest = (l.at + 1) * l.length - now
  if l.kind == 'day' then return math.max(ROUNDING, rest) end
  if l.count + 1 <= l.capacity then
    return math.max(ROUNDING, (l.used + 1 - l.capacity) / l.previous * l.length)
  end
  return math.max(ROUNDING, rest + (1 - math.max(0, l.capacity - 1) / l.count) * l.length)
end

local function charge(l, cost)
  if l.kind == 'parallel' then
    redis.call('ZADD', l.key, string.format('%.6f', now + LEASE), lease)
    redis.call('PEXPIRE', l.key, LEASE * 1000)
    l.count = redis.call('ZCARD', l.key)
    return
  end
  if cost == 0 then return end
  local value
  if l.kind == 'bucket' then
    l.at = math.max(l.at, now) + cost * l.interval
    l.expires = math.max(l.at, now + l.warm_up)
    value = string.format('%.6f %.6f %.6f', l.at, l.since, l.expires)
  else
    l.count = math.max(0, l.count + cost)
    l.used = l.count + l.previous * l.overlap
    l.expires = (l.at + (l.kind == 'window' and 2 or 1)) * l.length
    value = string.format('%.0f %.6f %.6f', l.at, l.count, l.previous)
  end
  redis.call('SET', l.key, value, 'PX', string.format('%.0f', math.max(1, (l.expires - now) * 1000)))
end

local function level(l)
  if l.kind == 'parallel' then return l.capacity - l.count, 0 end
  if l.kind == 'bucket' then
    local used = math.max(0, l.at - now)
    return (l.capacity * l.seconds - used) / l.interval, used
  end
  return l.capacity - l.used, l.used > 0 and (l.at + 1) * l.length - now or 0
end

if operation == 'finish' then
  for index = 1, #KEYS do
    if string.sub(ARGV[3 + index], 1, 8) == 'parallel' then
      redis.call('ZREM', KEYS[index], lease)
    else
      charge(read(index), amount)
    end
  end
  return {'0', '0'}
end
for index = 1, #KEYS do limits[index] = read(index) end
local refused, retry = 0, 0
if operation == 'admit' then
  for index, l in ipairs(limits) do
    local seconds = missing(l)
    if seconds > retry then refused, retry = index, seconds end
  end
  if refused == 0 then
    for _, l in ipairs(limits) do charge(l, l.cost) end
  end
elseif operation == 'charge' then
  for _, l in ipairs(limits) do charge(l, amount) end
end
local result = {tostring(refused), string.format('%.6f', retry)}
for _, l in ipairs(limits) do
  local remaining, reset = level(l)
  result[#result + 1] = string.format('%.6f %.6f', remaining, reset)
end
return result
