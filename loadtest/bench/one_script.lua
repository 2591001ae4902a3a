-- The decision of both baselines, one EVALSHA a request: a hash for each coupon, a hash for each user's keys.
-- KEYS     campaign, user, the new coupon, events
-- ARGV     idempotency key, the new coupon's code, user, what all coupons' keys begin with
-- Returns  {issued or replayed, code, issued_at, expires_at}, or {word}: unknown_campaign, issuance_paused,
--          campaign_not_running, per_user_limit, sold_out, budget_exhausted, {rate_limited, retry_after_ms}
local TOKEN = 1000000

local known = redis.call('HGET', KEYS[2], ARGV[1])
if known then
  local times = redis.call('HMGET', ARGV[4] .. known, 'issued_at', 'expires_at')
  return { 'replayed', known, times[1], times[2] }
end

local campaign = redis.call('HMGET', KEYS[1], 'status', 'starts_at', 'ends_at', 'expires_at', 'max_coupons',
  'max_coupons_per_user', 'amount', 'budget', 'per_second_milli', 'burst', 'issued', 'committed', 'tokens', 'tokens_at')
local status = campaign[1]
if not status then
  return { 'unknown_campaign' }
elseif status == 'paused' then
  return { 'issuance_paused' }
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if status ~= 'running' or now < tonumber(campaign[2]) or now >= tonumber(campaign[3]) then
  return { 'campaign_not_running' }
elseif redis.call('HLEN', KEYS[2]) >= tonumber(campaign[6]) then
  return { 'per_user_limit' }
end
local issued, committed = tonumber(campaign[11]) + 1, tonumber(campaign[12]) + tonumber(campaign[7])
if issued > tonumber(campaign[5]) then
  return { 'sold_out' }
elseif committed > tonumber(campaign[8]) then
  return { 'budget_exhausted' }
end
local per_second_milli, tokens_at = tonumber(campaign[9]), tonumber(campaign[14])
local tokens = math.min(campaign[10] * TOKEN, campaign[13] + math.max(0, now - tokens_at) * per_second_milli) - TOKEN
if tokens < 0 then
  return { 'rate_limited', math.ceil(-tokens / per_second_milli) }
end

local issued_at, expires_at = string.format('%.0f', now), campaign[4]
redis.call('HSET', KEYS[1], 'issued', issued, 'committed', string.format('%.0f', committed),
  'tokens', string.format('%.0f', tokens), 'tokens_at', string.format('%.0f', math.max(now, tokens_at)))
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[3], 'user_id', ARGV[3], 'status', 'issued', 'issued_at', issued_at, 'expires_at', expires_at)
redis.call('XADD', KEYS[4], '*', 'type', 'coupon.issued', 'code', ARGV[2], 'user_id', ARGV[3])
return { 'issued', ARGV[2], issued_at, expires_at }
