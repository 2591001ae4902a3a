-- Takes or renews a webhook's lease, so that one process at a time tells it its events.
-- KEYS     webhooks, the lease
-- ARGV     id, holder, milliseconds that it lasts
-- Returns  1, or 0 where the webhook is gone or another process holds the lease
local holder = redis.call('GET', KEYS[2])
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 or (holder and holder ~= ARGV[2]) then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
