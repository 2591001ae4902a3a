-- Adds an extension to a shard: from this write on it holds for every coupon issued before. Extensions keep their
-- order, so one that does not follow on what the shard has changes nothing.
-- KEYS[1]  the shard's state
-- ARGV     number of the extension (from 1) or 0 for the next, made_at or 0 for now, until, the most there may be, reason
-- Returns  false for an unknown shard, else {extended, number, number that would be next} or {too_many_extensions}
local state = load_state(KEYS[1])
if not state then
  return false
end
local extensions = state.extensions
local number, made_at, until_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if number == 0 then
  number, made_at = #extensions + 1, now_ms()
end
if number > tonumber(ARGV[4]) then
  return { 'too_many_extensions' }
elseif number == #extensions + 1 then
  extensions[number] = { made_at = made_at, until_ms = until_ms, issued = state.issued }
  redis.call('HSET', KEYS[1], 'extensions', cmsgpack.pack(extensions))
  redis.call('HSET', key_of(KEYS[1], 'extension:' .. number), 'made_at', integer(made_at), 'until', integer(until_ms),
    'total', integer(state.issued), 'done', 0, 'changed', 0, 'reason', ARGV[5])
  record_event(KEYS[1], 'campaign.extended', { extension = number, until_ms = until_ms, reason = ARGV[5] })
end
return { 'extended', number, #extensions + 1 }
