-- Notes that a campaign's waiting room is in use, so that every process turns it.
-- KEYS     the rooms in use
-- ARGV     campaign, the most rooms there may be
-- Returns  1 if it is noted, 0 if there are too many
if redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 0 then
  if redis.call('SCARD', KEYS[1]) >= tonumber(ARGV[2]) then
    return 0
  end
  redis.call('SADD', KEYS[1], ARGV[1])
end
return 1
