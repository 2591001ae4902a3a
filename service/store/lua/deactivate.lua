-- Deactivates one coupon and returns its money to the budget.
-- KEYS[1]  the shard's state
-- ARGV     sequence, reason
-- Returns  false for an unknown shard, else {deactivated, status, user, issued_at, starts_at, expires_at}, or {word, …}:
--          unknown_code, already_redeemed, expired (at), reserved_elsewhere (retry_after_ms)
local state_key, sequence = KEYS[1], tonumber(ARGV[1])
local state = load_state(state_key)
if not state then
  return false
end
local now = now_ms()
local record = load_record(state_key, state, sequence, now)
if not record then
  return { 'unknown_code' }
elseif record.status == REDEEMED then
  return { 'already_redeemed' }
elseif record.status == RESERVED then
  return { 'reserved_elsewhere', record.redemption.hold_until - now }
elseif record.status == EXPIRED then
  return { 'expired', record.expires_at }
elseif record.status == ISSUED then
  record.status = DEACTIVATED
  save_record(state_key, state, sequence, record)
  save_counters(state_key, state)
  record_coupon_event(state_key, 'coupon.deactivated', { coupons = { sequence, 1 }, reason = ARGV[2] })
end
return describe_coupon('deactivated', record)
