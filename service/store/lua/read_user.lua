-- A user's coupons of one campaign as they stand now, in the order of their issue.
-- Uses     clock, state, coupon, claims
-- KEYS[1]  the shard's state
-- ARGV     bucket of users, user
-- Returns  false for an unknown shard, else {sequence, {coupon, status, user, issued_at, starts_at, expires_at, amount
--          drawn from a pot}, …}
local state = load_state(KEYS[1])
if not state then
  return false
end
local now, coupons = now_ms(), {}
for _, sequence in ipairs(claimed_sequences(KEYS[1], ARGV[1], ARGV[2])) do
  coupons[#coupons + 1] = sequence
  coupons[#coupons + 1] = describe_coupon('coupon', state, load_record(state, sequence, now))
end
return coupons
