-- Keeps how far a preview has come, unless it is made already or another took its place.
-- Uses     state
-- KEYS[1]  the state of the campaign's first shard
-- ARGV     its number, the preview, 1 once it is made
-- Returns  1, or 0 where nobody wants it any more
local key = key_of(KEYS[1], 'preview:' .. ARGV[1])
if redis.call('HGET', KEYS[1], 'preview') ~= ARGV[1] then
  return 0
elseif ARGV[3] == '1' or redis.call('EXISTS', key) == 0 then
  redis.call('HDEL', KEYS[1], 'preview')
end
redis.call('SET', key, ARGV[2], 'XX', 'KEEPTTL')
return 1
