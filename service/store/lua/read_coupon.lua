-- One coupon as it stands now.
-- Uses     clock, state, coupon
-- KEYS[1]  the shard's state
-- ARGV     sequence
-- Returns  false for an unknown shard, else {coupon, status, user, issued_at, starts_at, expires_at,
--          amount drawn from a pot} or {unknown_code}
local state = load_state(KEYS[1])
if not state then
  return false
end
local record = load_record(state, tonumber(ARGV[1]), now_ms())
return record and describe_coupon('coupon', state, record) or { 'unknown_code' }
