-- Until when a merchant takes no redemptions, and why.
-- Uses     clock, state
-- KEYS[1]  the shard's state
-- ARGV     merchant
-- Returns  false if he takes them, else {until (ms), reason}
local until_ms = tonumber(redis.call('ZSCORE', key_of(KEYS[1], 'busy'), ARGV[1]) or 0)
if until_ms <= now_ms() then
  return false
end
return { until_ms, redis.call('HGET', key_of(KEYS[1], 'reasons'), ARGV[1]) }
