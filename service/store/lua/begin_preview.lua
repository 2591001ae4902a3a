-- Keeps a preview that a job is to make, in place of one that is not made yet.
-- Uses     state
-- KEYS[1]  the state of the campaign's first shard
-- ARGV     the preview, for how many seconds it is kept
-- Returns  its number
local unmade = redis.call('HGET', KEYS[1], 'preview')
if unmade then
  redis.call('DEL', key_of(KEYS[1], 'preview:' .. unmade))
end
local number = redis.call('HINCRBY', KEYS[1], 'previews', 1)
redis.call('HSET', KEYS[1], 'preview', number)
redis.call('SET', key_of(KEYS[1], 'preview:' .. number), ARGV[1], 'EX', ARGV[2])
return number
