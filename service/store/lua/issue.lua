-- Issues a batch of coupons of one shard: all that may be granted in the order of the batch, and nothing else.
-- Uses     clock, state, bucket, extension, validity, benefit, record, block, limits, draw
-- KEYS[1]  the shard's state
-- ARGV[1]  MessagePack: for each request user, bucket of users, the idempotency key's 8-byte digest
-- ARGV[2]  a seed that no client knows, where coupons draw their amounts from a pot
-- Returns  false for an unknown shard, else MessagePack, since the store looks at each table of a plain reply eight
--          times: {now, starts_at, expires_at, results, took_us}; took_us is the CPU time that all of it took; a result
--          is the sequence of the coupon issued; or, where coupons start in waves or draw amounts, {issued, sequence,
--          issued_at, starts_at, expires_at, amount drawn}; for a replay the same as a text, 8 bytes each, 0 where no
--          amount was drawn; or {word, …}: issuance_paused, campaign_not_running (status, starts_in_ms or -1),
--          per_user_limit, sold_out, budget_exhausted,
--          per_user_daily_limit (next_day_in_ms), daily_limit (next_day_in_ms), rate_limited (bucket, burst,
--          per_second_milli, retry_after_ms); the bucket is user, redemption or campaign
local CLAIM_BYTES = 13
local USER_BUCKET_BYTES = 12
local REPLAYED = '>I8I8I8I8I8'

-- Some builds of Redis, Debian's among them, have no such clock; their batches take no time that anybody could tell.
local library = rawget(_G, 'os')
local function worked_us()
  return library and math.floor(library.clock() * 1000000) or 0
end

local began_us = worked_us()
local state_key = KEYS[1]
local state = load_state(state_key)
if not state then
  return false
end
local requests = cmsgpack.unpack(ARGV[1])
local config, now = state.config, now_ms()
local made = #state.extensions
local starts_at, expires_at = window_of(config.validity, now, state.extensions, made)
local level = bucket_level(state.tokens, state.tokens_at, config.issue_rate, now)
local pot, day = open_pot(state_key, config, ARGV[2]), open_day(state_key, state, now)

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

local issued_before = state.issued
local not_issuing = campaign_refusal()
local per_user_limit, sold_out, budget_exhausted = { 'per_user_limit' }, { 'sold_out' }, { 'budget_exhausted' }

-- What a user holds: an optional level of his own bucket, then a claim for each coupon: digest and sequence.
-- Claims are 13 bytes and a level 12, so the length tells whether there is one. A table for each user would be the
-- dearest thing in the batch.
local users_key = key_of(state_key, 'users:')
local claims_of, levels, levels_at = {}, {}, {}

local function look_up(user, bucket)
  local claims = redis.call('HGET', users_key .. bucket, user) or ''
  local tokens, at
  if #claims % CLAIM_BYTES == USER_BUCKET_BYTES then
    tokens, at = struct.unpack('>I6I6', claims)
    claims = string.sub(claims, USER_BUCKET_BYTES + 1)
  end
  if config.user_rate then
    levels[user], levels_at[user] = bucket_level(tokens, at, config.user_rate, now), at
  end
  claims_of[user] = claims
  return claims
end

local function claimed_sequence(claims, digest)
  local at = string.find(claims, digest, 1, true)
  while at and at % CLAIM_BYTES ~= 1 do
    at = string.find(claims, digest, at + 1, true)
  end
  return at and struct.unpack('>I5', claims, at + 8)
end

-- Whoever lost his answer with others comes back with them, and his coupon lies beside theirs: a row is read once.
local rows = {}

local function row_of(sequence)
  local number = math.floor(sequence / ROW)
  local row = rows[number]
  if row == nil then
    row = redis.call('HGET', block_key(state, sequence), row_field(state, sequence % state.block_size))
    rows[number] = row
  end
  return row
end

-- What has made a coupon's first answer and never changes: when it was issued, and the amount that it has drawn.
local function read_first_answer(sequence)
  local row = state.in_rows and row_of(sequence)
  local at = row and find_part(row, sequence)
  if at then
    return struct.unpack('>I6', row, at + ISSUED_AT - 1), nil
  end
  local record = unpack_record(redis.call('HGET', block_key(state, sequence), sequence % state.block_size))
  return record.issued_at, record.amount
end

-- The first answer again: its times follow from the record's issue, whatever has become of the coupon since.
local function replayed(sequence)
  local issued_at, amount = now, pot and pot.amounts[sequence]
  if sequence < issued_before then
    issued_at, amount = read_first_answer(sequence)
  end
  local first_starts_at, first_expires_at = window_of(config.validity, issued_at, state.extensions,
    extensions_before(state.extensions, sequence), sequence)
  return struct.pack(REPLAYED, sequence, issued_at, first_starts_at, first_expires_at, amount or 0)
end

-- A campaign coupled to its merchants issues no coupon that they could not redeem before it expires.
local function redemption_refusal()
  local level, rate = redemption_bucket(state, config.redemptions_per_second_milli, expires_at - starts_at)
  return level < TOKEN and rate_limited('redemption', level, rate) or nil
end

local function refusal(user, bucket, claims)
  local day_is_over = day and day_refusal(day, state.issued, claims, CLAIM_BYTES)
  local user_level = levels[user]
  if not_issuing then
    return not_issuing
  elseif #claims >= config.max_coupons_per_user * CLAIM_BYTES
    and #claims >= quota_of(state_key, config, user, bucket) * CLAIM_BYTES then
    return per_user_limit
  elseif state.issued >= config.max_coupons then
    return sold_out
  elseif config.budget and state.committed + config.amount > config.budget then
    return budget_exhausted
  elseif day_is_over then
    return day_is_over
  elseif user_level and user_level < TOKEN then
    return rate_limited('user', user_level, config.user_rate)
  elseif level < TOKEN then
    return rate_limited('campaign', level, config.issue_rate)
  end
  return config.redemptions_per_second_milli and redemption_refusal()
end

local wave_starts = config.validity.waves and {}
local results, granted, granted_users = {}, {}, {}
for at = 1, #requests, 3 do
  local user, bucket, digest = requests[at], requests[at + 1], requests[at + 2]
  local claims = claims_of[user] or look_up(user, bucket)
  local sequence = claims ~= '' and claimed_sequence(claims, digest)
  local result = sequence and replayed(sequence) or refusal(user, bucket, claims)
  if not result then
    sequence = state.issued
    claims_of[user] = claims .. digest .. struct.pack('>I5', sequence)
    if config.user_rate then
      levels[user] = levels[user] - TOKEN
    end
    level = level - TOKEN
    state.issued = sequence + 1
    state.outstanding = state.outstanding + 1
    granted[sequence - issued_before + 1] = at
    granted_users[sequence - issued_before + 1] = user
    local amount = pot and draw(pot, sequence)
    state.committed = state.committed + (amount or config.amount)
    if wave_starts then
      wave_starts[sequence] = window_of(config.validity, now, state.extensions, made, sequence)
    end
    result = sequence
    if pot or wave_starts then
      result = { 'issued', sequence, now, wave_starts and wave_starts[sequence] or starts_at, expires_at, amount }
    end
  end
  results[(at + 2) / 3] = result
end

local function save_claims()
  for _, at in ipairs(granted) do
    local user = requests[at]
    local packed = claims_of[user]
    -- Whoever was granted several coupons is written once.
    if packed then
      claims_of[user] = nil
      if config.user_rate then
        packed = struct.pack('>I6I6', levels[user], math.max(now, levels_at[user] or 0)) .. packed
      end
      redis.call('HSET', users_key .. requests[at + 1], user, packed)
    end
  end
end

-- Coupons that differ in nothing but their users.
local function save_rows()
  local shared = struct.pack(HEAD_AND_USER, ISSUED, made, 0, now, starts_at, expires_at, 0, '')
  local count, from, fields = #granted, 1, {}
  while from <= count do
    local sequence = issued_before + from - 1
    local place, key = sequence % state.block_size, block_key(state, sequence)
    local to = math.min(count, from + ROW - 1 - place % ROW)
    local users = table.concat(granted_users, '\0', from, to) .. '\0'
    local part, field = pack_part(place, to - from + 1, shared, users), row_field(state, place)
    if place % ROW > 0 then
      part = (redis.call('HGET', key, field) or '') .. part
    end
    fields[#fields + 1], fields[#fields + 2] = field, part
    if to == count or (issued_before + to) % state.block_size == 0 then
      redis.call('HSET', key, unpack(fields))
      fields = {}
    end
    from = to + 1
  end
end

local function save_records(amounts)
  local status = pot and ISSUED + DRAWN or ISSUED
  -- All that a batch's new records say before their users, unless each starts in its wave.
  local head = struct.pack(HEAD, status, made, 0, now, starts_at, expires_at)
  local fields, width = {}, 0
  for i, at in ipairs(granted) do
    local user, sequence = requests[at], issued_before + i - 1
    if wave_starts then
      head = struct.pack(HEAD, status, made, 0, now, wave_starts[sequence], expires_at)
    end
    local record = head .. string.char(#user) .. user
    fields[width + 1] = sequence % state.block_size
    fields[width + 2] = amounts and record .. struct.pack('>I6', amounts[i]) or record
    width = width + 2
    if i == #granted or (sequence + 1) % state.block_size == 0 then
      redis.call('HSET', block_key(state, sequence), unpack(fields, 1, width))
      width = 0
    end
  end
end

if #granted > 0 then
  local amounts = pot and close_pot(state_key, pot, issued_before, #granted)
  save_claims()
  if state.in_rows and not (pot or wave_starts) then
    save_rows()
  else
    save_records(amounts)
  end
  save_counters(state_key, state, 'tokens', level, 'tokens_at', math.max(now, state.tokens_at or 0))
  if day then
    close_day(state_key, day)
  end
  record_event(state_key, 'coupon.issued', { issued_before, #granted, amounts or config.amount })
end
return cmsgpack.pack({ now, starts_at, expires_at, results, worked_us() - began_us })
