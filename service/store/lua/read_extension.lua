-- How far an extension is in one shard.
-- KEYS[1]  the shard's state
-- ARGV     number of the extension
-- Returns  false where there is none, else {made_at, until, done, total, changed, reason, failure}
local values = redis.call('HMGET', key_of(KEYS[1], 'extension:' .. ARGV[1]),
  'made_at', 'until', 'done', 'total', 'changed', 'reason', 'failure')
if not values[1] then
  return false
end
return { tonumber(values[1]), tonumber(values[2]), tonumber(values[3]), tonumber(values[4]), tonumber(values[5]),
  values[6], values[7] or '' }
