-- Limits of issue beyond stock, money and the common cap: the campaign's status and window, the calendar day, and the
-- quota that one user has earned.
-- Uses     state, validity

-- What everybody is told while the campaign issues nothing; nil while it does.
local function campaign_refusal(config, now, expires_at)
  local status = config.status
  if status == 'paused' then
    return { 'issuance_paused' }
  elseif status ~= 'scheduled' and status ~= 'running' then
    return { 'campaign_not_running', status, -1 }
  elseif config.starts_at and now < config.starts_at then
    return { 'campaign_not_running', 'scheduled', config.starts_at - now }
  elseif (config.ends_at and now >= config.ends_at) or now >= expires_at then
    return { 'campaign_not_running', 'ended', -1 }
  end
  return nil
end

-- The day in the campaign's zone and the first sequence issued in it; nil where the campaign limits no day. Sequences
-- are in the order of issue, so that counting from there counts the day, for the campaign and for each user's claims.
-- A clock that steps back stays in the later day. `left` is how many coupons the campaign may issue today,
-- `refusal(claims, claim_bytes, count)` what a user is told once `count` of these are gone, nil if he gets one.
local function open_day(state_key, state, now)
  local daily = state.config.daily
  if not daily then
    return nil
  end
  local stored = redis.call('HMGET', state_key, 'day', 'day_first')
  local known, number = tonumber(stored[1]), day_at(daily.offsets, now)
  local is_new, first = not known or known < number, tonumber(stored[2])
  if is_new then
    first = state.issued
  else
    number = known
  end
  local left = daily.max_coupons and daily.max_coupons - (state.issued - first) or math.huge
  local per_user = daily.max_coupons_per_user

  local function refusal(claims, claim_bytes, count)
    local word = count >= left and 'daily_limit'
    if per_user and #claims >= per_user * claim_bytes
      and struct.unpack('>I5', claims, #claims - per_user * claim_bytes + 9) >= first then
      word = 'per_user_daily_limit'
    end
    return word and { word, instant_of((number + 1) * DAY_MS, daily.offsets) - now } or nil
  end

  local function close()
    if is_new then
      redis.call('HSET', state_key, 'day', number, 'day_first', first)
    end
  end
  return { left = left, refusal = refusal, close = close }
end

-- How many coupons this user may hold: the common cap, or the quota that he was given up to the campaign's maximum.
local function quota_of(state_key, config, user, bucket)
  local quota = 0
  if config.max_quota_per_user then
    quota = tonumber(redis.call('HGET', key_of(state_key, 'quotas:' .. bucket), user) or 0)
  end
  return math.max(config.max_coupons_per_user, math.min(quota, config.max_quota_per_user or 0))
end
