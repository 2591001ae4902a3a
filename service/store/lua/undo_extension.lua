-- Undoes an extension in a shard: from this write on it holds no longer, save for coupons that were used meanwhile.
-- Uses     clock, state, sweep
-- KEYS[1]  the shard's state
-- ARGV     number of the extension; undone_at or 0 for now; how many extensions there were then, or 0 for all there
--          are; milliseconds within which it can be undone; reason, actor
-- Returns  false for an unknown shard, {unknown}, {undone} once it is, by whomever, or {undo_window_over, when it was}
local state_key, number = KEYS[1], tonumber(ARGV[1])
local state = load_state(state_key)
if not state then
  return false
end
local extension = state.extensions[number]
local asked_at, now = tonumber(ARGV[2]), now_ms()
if not extension then
  return { 'unknown' }
elseif extension.undone_made then
  return { 'undone' }
elseif asked_at == 0 and now > extension.made_at + tonumber(ARGV[4]) then
  return { 'undo_window_over', extension.made_at + tonumber(ARGV[4]) }
end
extension.undone_at = asked_at == 0 and now or asked_at
extension.undone_made = asked_at == 0 and #state.extensions or tonumber(ARGV[3])
extension.undone_issued = state.issued
extension.undoing = state.issued > 0 or nil
redis.call('HSET', state_key, 'extensions', cmsgpack.pack(state.extensions))
redis.call('HSET', key_of(state_key, 'extension:' .. number), 'undone_at', extension.undone_at,
  'undone_made', extension.undone_made, 'undone_by', ARGV[6], 'undo_reason', ARGV[5],
  'undo_total', state.issued, 'undo_done', 0, 'shortened', 0)
-- The sweep may have passed coupons that are over now.
wake_sweep(state_key, now)
record_event(state_key, 'campaign.extension_undone', { extension = number, reason = ARGV[5], actor = ARGV[6] })
return { 'undone' }
