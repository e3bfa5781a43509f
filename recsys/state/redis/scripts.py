"""What the Redis server does with a user's events in one step, in Lua.

A script runs alone: nothing is read or written between its commands, by no replica. Its writes go
to the append-only file and to the server's replicas as one transaction.

A user is one hash; of its fields, `e{event_id}` is an event under its sender's id, whose value is
the packed event, and `s{n}:{packed event}` a seeded one (`seeding`), whose value is empty. An event
is packed as its time (8 bytes, big-endian, plus 2^63: so that bytes sort as times do), the code
(1 byte) and the item id (UTF-8).

The outbox is a stream with an entry an event: `u` the user, `i` the event's id, `p` the packed
event, `d` its details if it has some; its id is a sequence number, kept in the meta hash.
Tombstones are a hash, user -> the packed time until which logs are not taken, and the packed time
of the erasure, which lacks where an earlier release wrote it; `ahead` is a set of
`{user}:{digest}`, of erased events whose time lies between the two.
"""

# Strings are compared byte by byte, which is how `order` sorts them. Lua's own `<` would follow the
# locale of the server's process.
_IS_LESS = r"""
local function is_less(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end
"""

# Whether the packed event lies at or before a time of the tombstone, its first or its last; there
# may be no tombstone.
_IS_ERASED = (
    _IS_LESS
    + r"""
local function is_erased(tombstone, packed)
  return tombstone and not is_less(string.sub(tombstone, 1, 8), string.sub(packed, 1, 8))
end

local function is_erased_live(tombstone, packed)
  return tombstone and not is_less(string.sub(tombstone, -8), string.sub(packed, 1, 8))
end
"""
)

# Times are rounded to about a millisecond.
_EACH_TIME = r"""
local function events_of(key)  -- {time, field, value} of each
  local held, events = redis.call('HGETALL', key), {}
  for i = 1, #held, 2 do
    local field, value = held[i], held[i + 1]
    local packed, at = value, 1
    if value == '' then packed, at = field, string.find(field, ':', 1, true) + 1 end
    local upper, lower = struct.unpack('>I4I4', packed, at)
    events[#events + 1] = {upper * 4294967296 + lower, field, value}
  end
  return events
end

local function expire(key, oldest)  -- packed time; '' if nothing expires
  if oldest == '' then return end
  local upper, lower = struct.unpack('>I4I4', oldest)
  for _, event in ipairs(events_of(key)) do
    if event[1] < upper * 4294967296 + lower then redis.call('HDEL', key, event[2]) end
  end
end
"""

# Times go first as rounded numbers, which decide nearly always.
_TRIM = r"""
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
  local events = events_of(key)
  local num_over = #events - cap
  bring_forward(events, num_over)
  for i = 1, num_over do redis.call('HDEL', key, events[i][2]) end
end
"""

# Users begin at KEYS[5], options are ARGV[1] to [4]: the cap; the packed time before which events
# have expired, or ''; the seconds that a user outlives the last write, or 0; the length of what
# comes before the user in a key.
_WRITE = (
    _IS_ERASED
    + _EACH_TIME
    + _TRIM
    + r"""
local FIRST_USER = 5
local cap, oldest, ttl, prefix = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local function user_of(key) return string.sub(key, prefix + 1) end

local function tombstone_of(key) return redis.call('HGET', KEYS[3], user_of(key)) end

local function count_events()  -- of each user
  local counts = {}
  for k = FIRST_USER, #KEYS do counts[k] = redis.call('HLEN', KEYS[k]) end
  return counts
end

local function settle(num_before)  -- hold cap and age for users that grew
  for k, num_now in pairs(count_events()) do
    if num_now > num_before[k] then
      expire(KEYS[k], oldest)
      if redis.call('HLEN', KEYS[k]) > cap then trim(KEYS[k], cap) end
      if ttl > 0 then redis.call('EXPIRE', KEYS[k], ttl) else redis.call('PERSIST', KEYS[k]) end
    end
  end
end
"""
)

#: KEYS: meta, outbox, tombstones, ahead, the users'. ARGV: see `_WRITE`, then of each event the
#: place of its user in KEYS, its field, the packed event, its digest, its details and whether its
#: time was told. Returns of each event 0: new, 1: repeated, 2: conflict, 3: erased.
APPEND = (
    _WRITE
    + r"""
local function send(key, field, packed, details)  -- to the outbox
  local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
  local entry = {string.format('%.0f-0', seq), 'u', user_of(key), 'i', string.sub(field, 2)}
  entry[#entry + 1], entry[#entry + 2] = 'p', packed
  if details ~= '' then entry[#entry + 1], entry[#entry + 2] = 'd', details end
  redis.call('XADD', KEYS[2], unpack(entry))
end

local function add(key, field, packed, digest, details, is_timed)
  local tombstone = tombstone_of(key)
  if is_erased_live(tombstone, packed) then return 3 end
  if is_erased(tombstone, packed) then
    if redis.call('SISMEMBER', KEYS[4], user_of(key) .. ':' .. digest) == 1 then return 3 end
  end
  local is_seeded = string.sub(field, 1, 1) == 's'
  local held = redis.call('HGET', key, field)
  if held then
    if is_seeded or held == packed then return 1 end
    local is_same = string.sub(held, 9) == string.sub(packed, 9)
    return (is_same and is_timed == '0') and 1 or 2
  end
  if redis.call('HEXISTS', key, 's0:' .. packed) == 1 then return 1 end
  redis.call('HSET', key, field, is_seeded and '' or packed)
  if not is_seeded then send(key, field, packed, details) end
  return 0
end

local num_before, outcomes = count_events(), {}
for i = 5, #ARGV, 6 do
  outcomes[#outcomes + 1] = add(KEYS[tonumber(ARGV[i])], unpack(ARGV, i + 1, i + 5))
end
settle(num_before)
return outcomes
"""
)

#: KEYS: meta, outbox, tombstones, ahead, the users'. ARGV: see `_WRITE`, then of each user the
#: number of seeded events, and their fields. What is held already is not written again, to the file
#: neither.
SEED = (
    _WRITE
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

local function is_left_out(field, num_like, tombstone)
  if num_like == nil and not tombstone then return false end
  local nth, packed = string.match(field, '^s(%d+):(.*)$')
  if is_erased(tombstone, packed) then return true end
  -- The sender's own events may stand for this one.
  return num_like ~= nil and tonumber(nth) < (num_like[packed] or 0)
end

local function add(key, from, to)
  local num_like, tombstone = count_like(key), tombstone_of(key)
  for first = from, to, STEP do
    local last = math.min(first + STEP - 1, to)
    local held, new = redis.call('HMGET', key, unpack(ARGV, first, last)), {}
    for i = first, last do
      if not held[i - first + 1] and not is_left_out(ARGV[i], num_like, tombstone) then
        new[#new + 1] = ARGV[i]
        new[#new + 1] = ''
      end
    end
    if #new > 0 then redis.call('HSET', key, unpack(new)) end
  end
end

local num_before, at = count_events(), 5
for k = FIRST_USER, #KEYS do
  local num_fields = tonumber(ARGV[at])
  add(KEYS[k], at + 1, at + num_fields)
  at = at + 1 + num_fields
end
settle(num_before)
"""
)

#: KEYS: the user's, tombstones, ahead. ARGV: the user, the packed times of the tombstone, and the
#: digests of the events ahead. Returns how many events were held.
DELETE = (
    _IS_LESS
    + r"""
local function later(one, other)
  return (one and is_less(other, one)) and one or other
end

local num_events = redis.call('HLEN', KEYS[1])
redis.call('DEL', KEYS[1])
local before = redis.call('HGET', KEYS[2], ARGV[1])
local until_then, at_then
if before then until_then, at_then = string.sub(before, 1, 8), string.sub(before, -8) end
redis.call('HSET', KEYS[2], ARGV[1], later(until_then, ARGV[2]) .. later(at_then, ARGV[3]))
for i = 4, #ARGV do redis.call('SADD', KEYS[3], ARGV[1] .. ':' .. ARGV[i]) end
return num_events
"""
)

#: KEYS: meta, outbox. ARGV: the batch's id. What lies up to the claimed batch's end is dropped.
SETTLE = r"""
local claimed = redis.call('HGET', KEYS[1], 'batch')
local id, last = string.match(claimed or '', '^(%S+) (%d+)$')
if id == ARGV[1] then
  redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f-0', tonumber(last) + 1))
  redis.call('HDEL', KEYS[1], 'batch')
end
"""

#: KEYS: users. ARGV: the packed time before which events have expired.
SWEEP = (
    _EACH_TIME
    + r"""
for _, key in ipairs(KEYS) do expire(key, ARGV[1]) end
"""
)
