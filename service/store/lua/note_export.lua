-- Notes how far a shard's events were exported, once the day file that holds them is on disk.
-- Uses     clock, state
-- KEYS[1]  the shard's state
-- ARGV     last event exported before, last event exported now, day of the open file, its bytes
-- Returns  1, or 0 where somebody else has exported meanwhile
local export_key = key_of(KEYS[1], 'export')
if (redis.call('HGET', export_key, 'id') or '0-0') ~= ARGV[1] then
  return 0
end
redis.call('HSET', export_key, 'id', ARGV[2], 'day', ARGV[3], 'bytes', ARGV[4], 'at', now_ms())
return 1
