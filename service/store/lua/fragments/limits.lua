-- Limits of issue beyond stock and the common cap: by the calendar day, and the quota that one user has earned.
-- Uses     state, validity

-- The day in the campaign's zone and the first sequence issued in it; nil where the campaign limits no day. Sequences
-- are in the order of issue, so that counting from there counts the day, for the campaign and for each user's claims.
-- A clock that steps back stays in the later day.
local function open_day(state_key, state, now)
  local daily = state.config.daily
  if not daily then
    return nil
  end
  local stored = redis.call('HMGET', state_key, 'day', 'day_first')
  local known, number = tonumber(stored[1]), day_at(daily.offsets, now)
  if known and known >= number then
    return { number = known, first = tonumber(stored[2]), limits = daily, now = now }
  end
  return { number = number, first = state.issued, limits = daily, now = now, is_new = true }
end

local function is_over_in_day(day, issued, claims, claim_bytes)
  local per_user, most = day.limits.max_coupons_per_user, day.limits.max_coupons
  if per_user and #claims >= per_user * claim_bytes
    and struct.unpack('>I5', claims, #claims - per_user * claim_bytes + 9) >= day.first then
    return 'per_user_daily_limit'
  elseif most and issued - day.first >= most then
    return 'daily_limit'
  end
  return nil
end

local function day_refusal(day, issued, claims, claim_bytes)
  local word = is_over_in_day(day, issued, claims, claim_bytes)
  return word and { word, instant_of((day.number + 1) * DAY_MS, day.limits.offsets) - day.now } or nil
end

local function close_day(state_key, day)
  if day.is_new then
    redis.call('HSET', state_key, 'day', day.number, 'day_first', day.first)
  end
end

-- How many coupons this user may hold: the common cap, or the quota that he was given up to the campaign's maximum.
local function quota_of(state_key, config, user, bucket)
  local quota = 0
  if config.max_quota_per_user then
    quota = tonumber(redis.call('HGET', key_of(state_key, 'quotas:' .. bucket), user) or 0)
  end
  return math.max(config.max_coupons_per_user, math.min(quota, config.max_quota_per_user or 0))
end
