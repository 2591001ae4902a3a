-- Notes that a merchant takes no redemptions until an instant, in place of what he said before.
-- Uses     clock, state
-- KEYS[1]  the shard's state
-- ARGV     merchant, until (ms), reason, the most merchants that may be busy at once
-- Returns  busy or too_many_busy_merchants
local FORGOTTEN_A_CALL = 100

local busy_key, reasons_key = key_of(KEYS[1], 'busy'), key_of(KEYS[1], 'reasons')
local merchant, until_ms, reason, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
-- Each word that is added takes more than one away whose time is over, so that they cannot pile up.
local over = redis.call('ZRANGEBYSCORE', busy_key, '-inf', now_ms(), 'LIMIT', 0, FORGOTTEN_A_CALL)
if redis.call('ZCARD', busy_key) - #over >= most and not redis.call('ZSCORE', busy_key, merchant) then
  return 'too_many_busy_merchants'
end
if #over > 0 then
  redis.call('ZREM', busy_key, unpack(over))
  redis.call('HDEL', reasons_key, unpack(over))
end
redis.call('ZADD', busy_key, until_ms, merchant)
redis.call('HSET', reasons_key, merchant, reason)
return 'busy'
