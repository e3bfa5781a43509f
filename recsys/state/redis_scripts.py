"""What the Redis server does with a user's events in one step, in Lua.

A script runs alone: nothing is read or written between its commands, by no replica. Its writes go
to the append-only file and to the server's replicas as one transaction.

A user is one hash; of its fields, `e{event_id}` is an event under its sender's id, whose value is
the packed event, and `s{n}:{packed event}` a seeded one (`seeding`), whose value is empty. An event
is packed as its time (8 bytes, big-endian, plus 2^63: so that bytes sort as times do), the code
(1 byte) and the item id (UTF-8).
"""

# Strings are compared byte by byte, which is how `order` sorts them. Lua's own `<` would follow the
# locale of the server's process. Times go first as rounded numbers, which decide nearly always.
_TRIM = r"""
local function is_less(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

local function sort_key(field, value)  -- of `order`; \0 in an item must not end it
  local packed, id = value, string.sub(field, 2)
  if value == '' then
    local nth
    nth, packed = string.match(field, '^s(%d+):(.*)$')
    id = 'seed:' .. string.byte(packed, 9) .. ':' .. nth  -- time and item are alike where it counts
  end
  local item = string.gsub(string.sub(packed, 10), '%z', '\0\1')
  return string.sub(packed, 1, 8) .. item .. '\0\0' .. id
end

local function is_earlier(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return is_less(sort_key(a[2], a[3]), sort_key(b[2], b[3]))
end

local function bring_forward(events, k)  -- the k earliest, by Hoare's FIND: linear, unlike a sort
  local low, high = 1, #events
  while low < high do
    local pivot, i, j = events[math.floor((low + high) / 2)], low, high
    repeat
      while is_earlier(events[i], pivot) do i = i + 1 end
      while is_earlier(pivot, events[j]) do j = j - 1 end
      if i <= j then
        events[i], events[j] = events[j], events[i]
        i, j = i + 1, j - 1
      end
    until i > j
    if k <= j then high = j elseif k >= i then low = i else return end
  end
end

local function trim(key, cap)
  local held, events = redis.call('HGETALL', key), {}
  for i = 1, #held, 2 do
    local field, value = held[i], held[i + 1]
    local packed, at = value, 1
    if value == '' then packed, at = field, string.find(field, ':', 1, true) + 1 end
    local upper, lower = struct.unpack('>I4I4', packed, at)
    events[#events + 1] = {upper * 4294967296 + lower, field, value}
  end
  local num_over = #events - cap
  bring_forward(events, num_over)
  for i = 1, num_over do redis.call('HDEL', key, events[i][2]) end
end
"""

_COUNT = r"""
local function count_events()  -- of each user
  local counts = {}
  for k = 2, #KEYS do counts[k] = redis.call('HLEN', KEYS[k]) end
  return counts
end

local function settle(num_before, cap)  -- count users that are new, trim those that grew
  local num_new_users = 0
  for k, num_now in pairs(count_events()) do
    if num_before[k] == 0 and num_now > 0 then num_new_users = num_new_users + 1 end
    if num_now > num_before[k] and num_now > cap then trim(KEYS[k], cap) end
  end
  if num_new_users > 0 then redis.call('HINCRBY', KEYS[1], 'num_users', num_new_users) end
end
"""

#: KEYS: the meta hash, then the users'. ARGV: the cap, then of each event the place of its user in
#: KEYS, its field and the packed event. Returns how many were new.
APPEND = (
    _TRIM
    + _COUNT
    + r"""
local num_before, num_new = count_events(), 0
for i = 2, #ARGV, 3 do
  local key, field, packed = KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 2]
  if redis.call('HEXISTS', key, 's0:' .. packed) == 0 then
    local value = string.sub(field, 1, 1) == 's' and '' or packed
    num_new = num_new + redis.call('HSETNX', key, field, value)
  end
end
settle(num_before, tonumber(ARGV[1]))
return num_new
"""
)

#: KEYS: the meta hash, then the users'. ARGV: the cap, then of each user the number of seeded
#: events, and their fields. What is held already is not written again, to the file neither.
SEED = (
    _TRIM
    + _COUNT
    + r"""
local STEP = 1000  -- fields in a command; Lua hands over no more than 8000 values

local function count_like(key)  -- the sender's own events, by what they are; nil if there are none
  local counts
  for _, packed in ipairs(redis.call('HVALS', key)) do
    if packed ~= '' then
      counts = counts or {}
      counts[packed] = (counts[packed] or 0) + 1
    end
  end
  return counts
end

local function is_sent(field, num_like)  -- whether the sender's own events stand for this one
  if num_like == nil then return false end
  local nth, packed = string.match(field, '^s(%d+):(.*)$')
  return tonumber(nth) < (num_like[packed] or 0)
end

local function add(key, from, to)
  local num_like = count_like(key)
  for first = from, to, STEP do
    local last = math.min(first + STEP - 1, to)
    local held, new = redis.call('HMGET', key, unpack(ARGV, first, last)), {}
    for i = first, last do
      if not held[i - first + 1] and not is_sent(ARGV[i], num_like) then
        new[#new + 1] = ARGV[i]
        new[#new + 1] = ''
      end
    end
    if #new > 0 then redis.call('HSET', key, unpack(new)) end
  end
end

local num_before, at = count_events(), 2
for k = 2, #KEYS do
  local num_fields = tonumber(ARGV[at])
  add(KEYS[k], at + 1, at + num_fields)
  at = at + 1 + num_fields
end
settle(num_before, tonumber(ARGV[1]))
"""
)

#: KEYS: the meta hash, the user's. Returns how many events were erased.
DELETE = r"""
local num_events = redis.call('HLEN', KEYS[2])
if redis.call('DEL', KEYS[2]) == 1 then redis.call('HINCRBY', KEYS[1], 'num_users', -1) end
return num_events
"""
