-- How far an extension is in one shard.
-- Uses     state
-- KEYS[1]  the shard's state
-- ARGV     number of the extension
-- Returns  the fields and values of its progress; none where there is no such extension
return redis.call('HGETALL', key_of(KEYS[1], 'extension:' .. ARGV[1]))
