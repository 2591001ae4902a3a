-- Replaces a campaign's definition if it still has the version that the change was made from, and keeps that one.
-- KEYS     campaigns, previous definitions
-- ARGV     id, expected version, definition (JSON)
-- Returns  updated, stale or unknown_campaign
local current = redis.call('HGET', KEYS[1], ARGV[1])
if not current then
  return 'unknown_campaign'
elseif cjson.decode(current).version ~= tonumber(ARGV[2]) then
  return 'stale'
end
redis.call('HSET', KEYS[2], ARGV[1], current)
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 'updated'
