-- Trims a shard's oldest events, a bounded number a call: what was exported, is old enough and was delivered.
-- Uses     clock, state
-- KEYS[1]  the shard's state
-- ARGV     milliseconds that exported events stay, the last event that webhooks no longer need or nothing, most to trim
-- Returns  how many were trimmed
local export_key, events_key = key_of(KEYS[1], 'export'), key_of(KEYS[1], 'events')
local exported = redis.call('HGET', export_key, 'id')
if not exported then
  return 0
end

local function parts_of(id)
  local at, number = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(at), tonumber(number)
end

local function is_after(id, other)
  local at, number = parts_of(id)
  local other_at, other_number = parts_of(other)
  return at > other_at or (at == other_at and number > other_number)
end

local oldest_kept = now_ms() - tonumber(ARGV[1])
local last
for _, entry in ipairs(redis.call('XRANGE', events_key, '-', exported, 'COUNT', ARGV[3])) do
  local id = entry[1]
  if parts_of(id) >= oldest_kept or (ARGV[2] ~= '' and is_after(id, ARGV[2])) then
    break
  end
  last = id
end
redis.call('HSET', export_key, 'at', now_ms())
if not last then
  return 0
end
local at, number = parts_of(last)
redis.call('HSET', export_key, 'trimmed', last)
return redis.call('XTRIM', events_key, 'MINID', integer(at) .. '-' .. integer(number + 1))
