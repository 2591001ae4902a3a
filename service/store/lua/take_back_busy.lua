-- A merchant takes redemptions again.
-- Uses     state
-- KEYS[1]  the shard's state
-- ARGV     merchant
-- Returns  how many words of his were taken back: 0 or 1
redis.call('HDEL', key_of(KEYS[1], 'reasons'), ARGV[1])
return redis.call('ZREM', key_of(KEYS[1], 'busy'), ARGV[1])
