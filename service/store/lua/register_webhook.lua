-- Registers a webhook.
-- KEYS     webhooks
-- ARGV     id, definition (JSON), the most webhooks there may be
-- Returns  registered or too_many_webhooks
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  return 'too_many_webhooks'
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 'registered'
