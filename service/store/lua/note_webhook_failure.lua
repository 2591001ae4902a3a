-- Notes how ill a webhook is.
-- KEYS     webhooks, health
-- ARGV     id, health (JSON)
-- Returns  1, or 0 where the webhook is gone
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return 1
