-- A preview as it was kept last.
-- Uses     state
-- KEYS[1]  the state of the campaign's first shard
-- ARGV     its number
-- Returns  the preview, or false where there is none
return redis.call('GET', key_of(KEYS[1], 'preview:' .. ARGV[1]))
