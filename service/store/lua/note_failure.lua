-- Notes why an extension's write-through has failed, or that it goes on.
-- Uses     state
-- KEYS[1]  the state of the campaign's first shard
-- ARGV     number of the extension, failure or nothing
-- Returns  false where there is no such extension, else 1
local progress_key = key_of(KEYS[1], 'extension:' .. ARGV[1])
if redis.call('EXISTS', progress_key) == 0 then
  return false
end
redis.call('HSET', progress_key, 'failure', ARGV[2])
return 1
