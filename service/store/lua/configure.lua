-- Gives a shard its configuration, or a newer version of it. A cap below what was given out already is refused.
-- Uses     state
-- KEYS[1]  the shard's state
-- ARGV[1]  MessagePack: the configuration (see service/store/configuration.py)
-- Returns  {configured}, {max_coupons_below_issued, issued} or {budget_below_committed, committed}; an older or equal
--          version than the shard's own changes nothing and is {configured}
local config = cmsgpack.unpack(ARGV[1])
local state = load_state(KEYS[1])
if not state then
  local layout = (config.pot or config.validity.waves) and LAYOUT_WITHOUT_ROWS or LAYOUT
  redis.call('HSET', KEYS[1], 'config', string.rep(LAYOUT_MARK, layout) .. ARGV[1],
    'ledger', struct.pack(LEDGER_FORM, 0, 0, 0, 0, 0, 0, 0, 0, 0))
  return { 'configured' }
elseif config.version <= state.config.version then
  return { 'configured' }
elseif config.max_coupons < state.issued and config.max_coupons < state.config.max_coupons then
  return { 'max_coupons_below_issued', state.issued }
elseif config.budget and config.budget < state.committed
  and (not state.config.budget or config.budget < state.config.budget) then
  return { 'budget_below_committed', state.committed }
end
redis.call('HSET', KEYS[1], 'config', string.rep(LAYOUT_MARK, state.layout) .. ARGV[1])
return { 'configured' }
