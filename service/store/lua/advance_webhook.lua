-- Notes that a webhook was told a shard's events up to one, or need not be told; what was delivered shows it well.
-- KEYS     webhooks, health, the webhook's cursors
-- ARGV     id, campaign and shard, last event told before or nothing, last event told now, 1 if anything was delivered
-- Returns  1, or 0 where the webhook is gone or somebody else has told it meanwhile
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 or (redis.call('HGET', KEYS[3], ARGV[2]) or '') ~= ARGV[3] then
  return 0
end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
if ARGV[5] == '1' then
  redis.call('HDEL', KEYS[2], ARGV[1])
end
return 1
