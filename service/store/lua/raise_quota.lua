-- Raises how many coupons one user may hold, up to the campaign's maximum. Asking for less than he may changes nothing.
-- Uses     state, limits
-- KEYS[1]  the shard's state
-- ARGV     bucket of users, user, the coupons that he may hold, reason
-- Returns  false for an unknown shard, else {raised, how many he may hold now} or {quota_too_high, the maximum}
local state_key, bucket, user, wanted, reason = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local state = load_state(state_key)
if not state then
  return false
end
local config = state.config
local most = math.max(config.max_quota_per_user or 0, config.max_coupons_per_user)
local quota = quota_of(state_key, config, user, bucket)
if wanted > most then
  return { 'quota_too_high', most }
elseif wanted <= quota then
  return { 'raised', quota }
end
redis.call('HSET', key_of(state_key, 'quotas:' .. bucket), user, wanted)
record_event(state_key, 'quota.raised', { user, wanted, reason })
return { 'raised', wanted }
