-- Issues a batch of coupons of one shard: all that may be granted in the order of the batch, and nothing else.
-- Uses     clock, state, bucket, validity, record, block, new_coupons, limits, draw, first_answer
-- KEYS[1]  the shard's state
-- ARGV[1]  MessagePack: the users; the bucket of each; the 8-byte digest of each one's idempotency key
-- ARGV[2]  a seed that no client knows, where coupons draw their amounts from a pot
-- Returns  false for an unknown shard, else MessagePack, since the store looks at each table of a plain reply eight
--          times: {now, starts_at, expires_at, results, first_answers, took_us}; took_us is the CPU time that all of it
--          took; a result is the sequence of the coupon issued; or, where coupons start in waves or draw amounts,
--          {issued, sequence, issued_at, starts_at, expires_at, amount drawn}; for a replay the complement of
--          4096 * sequence + the place of its first answer; or {word, …}: issuance_paused, campaign_not_running
--          (status, starts_in_ms or -1), per_user_limit, sold_out, budget_exhausted, per_user_daily_limit
--          (next_day_in_ms), daily_limit (next_day_in_ms), record_lost (of a replay), rate_limited (bucket, burst,
--          per_second_milli, retry_after_ms); the bucket is user, redemption or campaign. first_answers has four
--          numbers for each: issued, starts and expires at, and the amount drawn or 0
local CLAIM_BYTES, CLAIM = 13, '>c8I5'
local USER_BUCKET_BYTES, USER_BUCKET = 12, '>I6I6'

-- Some builds of Redis, Debian's among them, have no such clock; their batches take no time that anybody could tell.
local library = rawget(_G, 'os')
local began_s = library and library.clock()
local state_key = KEYS[1]
local state = load_state(state_key)
if not state then
  return false
end
local users, buckets, digests = unpack(cmsgpack.unpack(ARGV[1]))
local config, now = state.config, now_ms()
local issued_before, made = state.issued, #state.extensions
local starts_at, expires_at = window_of(config.validity, now, state.extensions, made)
local level = bucket_level(state.tokens, state.tokens_at, config.issue_rate, now)
local pot, day = open_pot(state_key, config, ARGV[2]), open_day(state_key, state, now)

-- How many coupons each limit of the campaign leaves to this batch. One that is coupled to its merchants issues none
-- that they could not redeem before it expires.
local in_stock, in_bucket = config.max_coupons - issued_before, math.floor(level / TOKEN)
local in_budget = config.budget and math.floor((config.budget - state.committed) / config.amount) or in_stock
local in_day = day and day.left or in_stock
local redeemable, merchants_level, merchants_rate = in_stock, nil, nil
if config.redemptions_per_second_milli then
  merchants_level, merchants_rate =
    redemption_bucket(state, config.redemptions_per_second_milli, expires_at - starts_at)
  redeemable = math.floor(merchants_level / TOKEN)
end
local closed = campaign_refusal(config, now, expires_at)
local left = closed and 0 or math.min(in_stock, in_bucket, in_budget, in_day, redeemable)

-- What a user holds: an optional level of his own bucket, then a claim for each coupon: digest and sequence.
-- Claims are 13 bytes and a level 12, so the length tells whether there is one. A command costs as much as a dozen of
-- the users in it, so all users of a bucket are read by one, before anything is decided.
local users_key = key_of(state_key, 'users:')
local users_of, claims_of, levels, levels_at = {}, {}, {}, {}
for i = 1, #users do
  local bucket = buckets[i]
  local together = users_of[bucket]
  if together then
    together[#together + 1] = users[i]
  else
    users_of[bucket] = { users[i] }
  end
end
for bucket, together in pairs(users_of) do
  for from = 1, #together, MOST_VALUES do
    local to = math.min(from + MOST_VALUES - 1, #together)
    local found = redis.call('HMGET', users_key .. bucket, unpack(together, from, to))
    for i = 1, #found do
      local claims = found[i]
      if claims or config.user_rate then
        local user, tokens, at = together[from + i - 1], nil, nil
        claims = claims or ''
        if #claims % CLAIM_BYTES == USER_BUCKET_BYTES then
          tokens, at = struct.unpack(USER_BUCKET, claims)
          claims = string.sub(claims, USER_BUCKET_BYTES + 1)
        end
        if config.user_rate then
          levels[user], levels_at[user] = bucket_level(tokens, at, config.user_rate, now), at
        end
        claims_of[user] = claims
      end
    end
  end
end

local function claimed_sequence(claims, digest)
  local at = string.find(claims, digest, 1, true)
  while at and at % CLAIM_BYTES ~= 1 do
    at = string.find(claims, digest, at + 1, true)
  end
  return at and struct.unpack('>I5', claims, at + 8)
end

local count, told = 0, {}

-- Many are told the same, and each table costs. What is used up stays so for the rest of the batch.
local function in_a_word(word)
  told[word] = told[word] or { word }
  return told[word]
end

local function refusal(user, bucket, claims)
  local user_level = levels[user]
  if closed then
    return closed
  elseif #claims >= config.max_coupons_per_user * CLAIM_BYTES
    and #claims >= quota_of(state_key, config, user, bucket) * CLAIM_BYTES then
    return in_a_word('per_user_limit')
  elseif count >= in_stock then
    return in_a_word('sold_out')
  elseif count >= in_budget then
    return in_a_word('budget_exhausted')
  end
  local day_is_over = day and day.refusal(claims, CLAIM_BYTES, count)
  if day_is_over then
    return day_is_over
  elseif user_level and user_level < TOKEN then
    return rate_limited('user', user_level, config.user_rate, levels_at[user] or 0, now)
  elseif count >= in_bucket then
    told.campaign = told.campaign
      or rate_limited('campaign', level - count * TOKEN, config.issue_rate, state.tokens_at, now)
    return told.campaign
  elseif count >= redeemable then
    told.merchants = told.merchants
      or rate_limited('redemption', merchants_level - count * TOKEN, merchants_rate, now, now)
    return told.merchants
  end
  return nil
end

-- Whoever comes for the first time while every limit leaves something is asked nothing more.
local wave_starts = config.validity.waves and {}
local results, repeats, repeated, granted_users, grants_of = {}, {}, {}, {}, {}
for place = 1, #users do
  local user, bucket, digest, result = users[place], buckets[place], digests[place], nil
  local claims = claims_of[user]
  if claims or count >= left then
    claims = claims or ''
    result = claimed_sequence(claims, digest)
    if result then
      local last = #repeats
      repeats[last + 1], repeated[last + 1] = place, result
    else
      result = refusal(user, bucket, claims)
    end
  end
  if not result then
    result = issued_before + count
    count = count + 1
    granted_users[count] = user
    claims = (claims or '') .. struct.pack(CLAIM, digest, result)
    claims_of[user] = claims
    if config.user_rate then
      levels[user] = levels[user] - TOKEN
      claims = struct.pack(USER_BUCKET, levels[user], math.max(now, levels_at[user] or 0)) .. claims
    end
    local grants = grants_of[bucket]
    if grants then
      local last = #grants
      grants[last + 1], grants[last + 2] = user, claims
    else
      grants_of[bucket] = { user, claims }
    end
    if pot or wave_starts then
      local amount = pot and pot.draw(result)
      if wave_starts then
        wave_starts[count] = window_of(config.validity, now, state.extensions, made, result)
      end
      result = { 'issued', result, now, wave_starts and wave_starts[count] or starts_at, expires_at, amount }
    end
  end
  results[place] = result
end

-- Of a user who was granted several coupons the last claims stand.
for bucket, grants in pairs(grants_of) do
  for from = 1, #grants, MOST_VALUES do
    redis.call('HSET', users_key .. bucket, unpack(grants, from, math.min(from + MOST_VALUES - 1, #grants)))
  end
end

if count > 0 then
  local amounts = pot and pot.close()
  if state.in_rows then
    save_rows(state, issued_before, granted_users,
      struct.pack(HEAD_AND_USER, ISSUED, made, 0, now, starts_at, expires_at, 0, ''))
  else
    local status = pot and ISSUED + DRAWN or ISSUED
    save_records(state, issued_before, granted_users, amounts, function(i)
      return struct.pack(HEAD, status, made, 0, now, wave_starts and wave_starts[i] or starts_at, expires_at)
    end)
  end
  state.issued = issued_before + count
  state.outstanding = state.outstanding + count
  state.committed = state.committed + (pot and pot.total or count * config.amount)
  state.tokens, state.tokens_at = level - count * TOKEN, math.max(now, state.tokens_at)
  save_ledger(state_key, state)
  if day then
    day.close()
  end
  record_event(state_key, 'coupon.issued', { issued_before, count, amounts or config.amount })
end

-- Last, when the records of this batch can be read as well, and nothing is left to be written.
local first_answers = {}
local first_answer_of = #repeats > 0 and open_first_answers(state, repeated, first_answers)
for i = 1, #repeats do
  results[repeats[i]] = first_answer_of(repeated[i]) or in_a_word('record_lost')
end
local took_us = began_s and math.floor((library.clock() - began_s) * 1000000) or 0
return cmsgpack.pack({ now, starts_at, expires_at, results, first_answers, took_us })
