-- Adds an extension to a shard: from this write on it holds for every coupon issued before or, if it is scoped, for
-- those that its job finds. Extensions keep their order, so one that does not follow on what the shard has changes
-- nothing.
-- Uses     clock, state
-- KEYS[1]  the shard's state
-- ARGV[1]  number of the extension (from 1), or 0 for the next
-- ARGV[2]  made_at, or 0 for now
-- ARGV[3]  the most there may be
-- ARGV[4]  MessagePack: until_ms, or by_ms and outage, its number; include_expired; reason, actor
-- ARGV[5]  MessagePack: the scope; empty for every coupon
-- Returns  false for an unknown shard, else {extended, number, number that would be next}, {known} for an outage that
--          is no news, or {too_many_extensions}
local state_key = KEYS[1]
local state = load_state(state_key)
if not state then
  return false
end
local extensions, terms = state.extensions, cmsgpack.unpack(ARGV[4])
local asked, made_at = tonumber(ARGV[1]), tonumber(ARGV[2])
local number = asked == 0 and #extensions + 1 or asked
if asked == 0 and terms.outage and tonumber(redis.call('HGET', state_key, 'outages') or 0) >= terms.outage then
  return { 'known' }
elseif number > tonumber(ARGV[3]) then
  return { 'too_many_extensions' }
elseif number ~= #extensions + 1 then
  return { 'extended', number, #extensions + 1 }
end

local scoped = ARGV[5] ~= '' or nil
extensions[number] = {
  made_at = asked == 0 and now_ms() or made_at,
  issued = state.issued,
  until_ms = terms.until_ms,
  by_ms = terms.by_ms,
  include_expired = terms.include_expired or nil,
  scoped = scoped,
}
redis.call('HSET', state_key, 'extensions', cmsgpack.pack(extensions))
redis.call('HSET', key_of(state_key, 'extension:' .. number), 'made_at', extensions[number].made_at,
  'total', state.issued, 'done', 0, 'changed', 0, 'revived', 0, 'refused', 0, 'terms', ARGV[4], 'scope', ARGV[5])
if terms.outage then
  redis.call('HSET', state_key, 'outages', terms.outage)
end
record_event(state_key, 'campaign.extended', {
  extension = number,
  until_ms = terms.until_ms,
  added_ms = terms.by_ms,
  reason = terms.reason,
  actor = terms.actor,
})
return { 'extended', number, number + 1 }
