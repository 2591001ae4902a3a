-- Registers a new campaign.
-- KEYS     campaigns, prefixes
-- ARGV     id, code prefix, definition (JSON), the most campaigns there may be
-- Returns  registered, campaign_exists, code_prefix_taken or too_many_campaigns
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  return 'campaign_exists'
elseif redis.call('HEXISTS', KEYS[2], ARGV[2]) == 1 then
  return 'code_prefix_taken'
elseif redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return 'too_many_campaigns'
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 'registered'
