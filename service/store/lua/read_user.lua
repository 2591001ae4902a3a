-- A user's coupons of one campaign as they stand now, in the order of their issue.
-- KEYS[1]  the shard's state
-- ARGV     bucket of users, user
-- Returns  false for an unknown shard, else {sequence, {coupon, status, user, issued_at, starts_at, expires_at}, …}
local state = load_state(KEYS[1])
if not state then
  return false
end
local packed = redis.call('HGET', key_of(KEYS[1], 'users:' .. ARGV[1]), ARGV[2]) or ''
local now, coupons = now_ms(), {}
for at = #packed % 13 + 1, #packed, 13 do
  local sequence = struct.unpack('>I5', packed, at + 8)
  coupons[#coupons + 1] = sequence
  coupons[#coupons + 1] = describe_coupon('coupon', load_record(KEYS[1], state, sequence, now))
end
return coupons
