-- Issues a batch of coupons of one shard: all that may be granted in the order of the batch, and nothing else.
-- Uses     draw, limits
-- KEYS[1]  the shard's state
-- ARGV[1]  MessagePack: user, bucket of users, user, bucket, …
-- ARGV[2]  the idempotency keys' 8-byte digests, one after the other
-- ARGV[3]  a seed that no client knows, where coupons draw their amounts from a pot
-- Returns  false for an unknown shard, else {now, starts_at, expires_at, results, took_us}; took_us is the CPU time that
--          all of it took; a result is the sequence of the coupon issued, or {word, …}: issued (where coupons start in
--          waves or draw amounts) and replayed (sequence, issued_at, starts_at, expires_at, amount drawn),
--          issuance_paused, campaign_not_running (status, starts_in_ms or -1), per_user_limit, sold_out,
--          budget_exhausted, per_user_daily_limit (next_day_in_ms), daily_limit (next_day_in_ms), rate_limited (bucket,
--          burst, per_second_milli, retry_after_ms); the bucket is user, redemption or campaign
local CLAIM_BYTES = 13
local USER_BUCKET_BYTES = 12

-- Some builds of Redis, Debian's among them, have no such clock; their batches take no time that anybody could tell.
local library = rawget(_G, 'os')
local function worked_us()
  return library and library.clock() * 1000000 or 0
end

local began_us = worked_us()
local state_key = KEYS[1]
local state = load_state(state_key)
if not state then
  return false
end
local requests, digests = cmsgpack.unpack(ARGV[1]), ARGV[2]
local config, now = state.config, now_ms()
local made = #state.extensions
local starts_at, expires_at = window_of(config.validity, now, state.extensions, made)
local level = bucket_level(state.tokens, state.tokens_at, config.issue_rate, now)
local pot, day = open_pot(state_key, config, ARGV[3]), open_day(state_key, state, now)

local function campaign_refusal()
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

local not_issuing = campaign_refusal()
local per_user_limit, sold_out, budget_exhausted = { 'per_user_limit' }, { 'sold_out' }, { 'budget_exhausted' }

-- What a user holds: an optional level of his own bucket, then a claim for each coupon: digest and sequence.
-- Claims are 13 bytes and a level 12, so the length tells whether there is one.
local users_key = key_of(state_key, 'users:')
local holdings = {}

local function holding_of(user, bucket)
  local holding = holdings[user]
  if not holding then
    local key = users_key .. bucket
    local packed = redis.call('HGET', key, user) or ''
    holding = { key = key, claims = packed }
    if #packed % CLAIM_BYTES == USER_BUCKET_BYTES then
      holding.tokens, holding.tokens_at = struct.unpack('>I6I6', packed)
      holding.claims = string.sub(packed, USER_BUCKET_BYTES + 1)
    end
    if config.user_rate then
      holding.level = bucket_level(holding.tokens, holding.tokens_at, config.user_rate, now)
    end
    holdings[user] = holding
  end
  return holding
end

local function claimed_sequence(claims, digest)
  local from = 1
  while true do
    local at = string.find(claims, digest, from, true)
    if not at then
      return nil
    elseif at % CLAIM_BYTES == 1 then
      return struct.unpack('>I5', claims, at + 8)
    end
    from = at + 1
  end
end

-- The first answer again: its times follow from the record's issue, whatever has become of the coupon since.
local function replayed(sequence)
  local issued_at, amount = now, pot and pot.amounts[sequence]
  if sequence < state.issued_before then
    local packed = redis.call('HGET', block_key(state_key, sequence), integer(sequence % BLOCK))
    local record = unpack_record(packed)
    issued_at, amount = record.issued_at, record.amount
  end
  local first_starts_at, first_expires_at = window_of(config.validity, issued_at, state.extensions,
    extensions_before(state.extensions, sequence), sequence)
  return { 'replayed', sequence, issued_at, first_starts_at, first_expires_at, amount }
end

-- A campaign coupled to its merchants issues no coupon that they could not redeem before it expires.
local function redemption_refusal()
  local level, rate = redemption_bucket(state, config.redemptions_per_second_milli, expires_at - starts_at)
  return level < TOKEN and rate_limited('redemption', level, rate) or nil
end

local function refusal(holding, user, bucket)
  local day_is_over = day and day_refusal(day, state.issued, holding.claims, CLAIM_BYTES)
  if not_issuing then
    return not_issuing
  elseif #holding.claims >= config.max_coupons_per_user * CLAIM_BYTES
    and #holding.claims >= quota_of(state_key, config, user, bucket) * CLAIM_BYTES then
    return per_user_limit
  elseif state.issued >= config.max_coupons then
    return sold_out
  elseif config.budget and state.committed + config.amount > config.budget then
    return budget_exhausted
  elseif day_is_over then
    return day_is_over
  elseif holding.level and holding.level < TOKEN then
    return rate_limited('user', holding.level, config.user_rate)
  elseif level < TOKEN then
    return rate_limited('campaign', level, config.issue_rate)
  end
  return config.redemptions_per_second_milli and redemption_refusal()
end

state.issued_before = state.issued
local wave_starts = config.validity.waves and {}
local results, granted_users = {}, {}
for i = 1, #requests / 2 do
  local user, bucket = requests[2 * i - 1], requests[2 * i]
  local digest = string.sub(digests, 8 * i - 7, 8 * i)
  local holding = holding_of(user, bucket)
  local sequence = claimed_sequence(holding.claims, digest)
  local refused = not sequence and refusal(holding, user, bucket)
  if sequence then
    results[i] = replayed(sequence)
  elseif refused then
    results[i] = refused
  else
    sequence = state.issued
    holding.claims = holding.claims .. digest .. struct.pack('>I5', sequence)
    holding.charged = true
    if holding.level then
      holding.level = holding.level - TOKEN
    end
    level = level - TOKEN
    state.issued = sequence + 1
    state.outstanding = state.outstanding + 1
    granted_users[#granted_users + 1] = user
    results[i] = sequence
    local amount = pot and draw(pot, sequence)
    state.committed = state.committed + (amount or config.amount)
    if wave_starts then
      wave_starts[sequence] = window_of(config.validity, now, state.extensions, made, sequence)
    end
    if pot or wave_starts then
      results[i] = { 'issued', sequence, now, wave_starts and wave_starts[sequence] or starts_at, expires_at, amount }
    end
  end
end

if #granted_users > 0 then
  for user, holding in pairs(holdings) do
    if holding.charged then
      local packed = holding.claims
      if holding.level then
        packed = struct.pack('>I6I6', holding.level, math.max(now, holding.tokens_at or 0)) .. packed
      end
      redis.call('HSET', holding.key, user, packed)
    end
  end
  local amounts = pot and close_pot(state_key, pot, state.issued_before, #granted_users)
  -- All that a batch's new records say before their users, unless each starts in its wave.
  local status = pot and ISSUED + DRAWN or ISSUED
  local head = struct.pack(HEAD, status, made, 0, now, starts_at, expires_at)
  local sequence, granted = state.issued_before, 1
  while granted <= #granted_users do
    local fields = {}
    local key = block_key(state_key, sequence)
    repeat
      if wave_starts then
        head = struct.pack(HEAD, status, made, 0, now, wave_starts[sequence], expires_at)
      end
      fields[#fields + 1] = sequence % BLOCK
      fields[#fields + 1] = head .. with_length(granted_users[granted])
        .. (amounts and struct.pack('>I6', amounts[granted]) or '')
      sequence, granted = sequence + 1, granted + 1
    until granted > #granted_users or sequence % BLOCK == 0
    redis.call('HSET', key, unpack(fields))
  end
  save_counters(state_key, state,
    'tokens', integer(level), 'tokens_at', integer(math.max(now, state.tokens_at or 0)))
  if day then
    close_day(state_key, day)
  end
  record_event(state_key, 'coupon.issued', { state.issued_before, #granted_users, amounts or config.amount })
end
return { now, starts_at, expires_at, results, worked_us() - began_us }
