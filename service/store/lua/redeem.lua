-- Redeems or reserves a batch of coupons of one shard.
-- Uses     clock, state, events, bucket, benefit, record, block, repack
-- KEYS[1]  the shard's state
-- ARGV[1]  MessagePack: the sequences; the merchants; the orders; their amounts, or -1; milliseconds to hold, or 0
-- ARGV[2]  how often one coupon may be tried
-- Returns  false for an unknown shard, else MessagePack as issue.lua: {now, results}; a result is the discount of a
--          redemption made now at a coupon's first attempt, or {word, …}: redeemed (attempt, discount), replayed
--          (attempt, status, at, discount, hold_until, merchant, order), unknown_code, already_redeemed, deactivated,
--          expired (at), reserved_elsewhere (retry_after_ms), not_yet_valid (starts_at, expires_at; also where the
--          campaign is closed at this hour), order_amount_required, order_too_small (min_order_amount),
--          too_many_attempts, per_order_limit, per_merchant_limit, merchant_busy (retry_after_ms), rate_limited (as
--          issue.lua)
local MERCHANT_BUCKET = '>I6I6'

local state_key = KEYS[1]
local state = load_state(state_key)
if not state then
  return false
end
local sequences, merchant_ids, order_ids, order_amounts, holds_ms = unpack(cmsgpack.unpack(ARGV[1]))
local config, now, max_attempts = state.config, now_ms(), tonumber(ARGV[2])
local percent, min_order_amount, merchant_rate = config.percent, config.min_order_amount, config.merchant_rate

local function is_shut()
  -- Uses     opening
  return not is_open(config.validity, now)
end

local closed = config.validity.opening and is_shut()

-- The buckets of all merchants of the batch, read by one command and written by one: a command costs as much as all
-- else that is done for a merchant. `levels` is what is left to each, `before` what was, in the order of `merchants`;
-- only whoever was charged is written. Of those charged later than now, since the clock stepped back, it is known when.
local merchants_key, merchants, levels, before, later = key_of(state_key, 'merchants'), {}, {}, {}, {}
if merchant_rate then
  for i = 1, #merchant_ids do
    local merchant = merchant_ids[i]
    if not levels[merchant] then
      levels[merchant], merchants[#merchants + 1] = 0, merchant
    end
  end
  for from = 1, #merchants, MOST_VALUES do
    local to = math.min(from + MOST_VALUES - 1, #merchants)
    local buckets = redis.call('HMGET', merchants_key, unpack(merchants, from, to))
    for i = 1, #buckets do
      local merchant, tokens, at = merchants[from + i - 1], nil, 0
      if buckets[i] then
        tokens, at = struct.unpack(MERCHANT_BUCKET, buckets[i])
        if at > now then
          later[merchant] = at
        end
      end
      before[from + i - 1] = bucket_level(tokens, at, merchant_rate, now)
      levels[merchant] = before[from + i - 1]
    end
  end
end

local function write_buckets()
  local values = {}
  for i = 1, #merchants do
    local merchant = merchants[i]
    local level, last = levels[merchant], #values
    if level ~= before[i] then
      values[last + 1] = merchant
      values[last + 2] = struct.pack(MERCHANT_BUCKET, level, later[merchant] or now)
    end
  end
  for from = 1, #values, MOST_VALUES do
    redis.call('HSET', merchants_key, unpack(values, from, math.min(from + MOST_VALUES - 1, #values)))
  end
end

local busy_key = key_of(state_key, 'busy')
local somebody_is_busy = redis.call('EXISTS', busy_key) == 1

local function busy_until(merchant)
  return tonumber(redis.call('ZSCORE', busy_key, merchant) or 0)
end

local function charge(merchant)
  if merchant_rate then
    levels[merchant] = levels[merchant] - TOKEN
  end
end

local function refusal_of_amount(order_amount)
  if percent and order_amount < 0 then
    return { 'order_amount_required' }
  elseif min_order_amount > 0 and order_amount < min_order_amount then
    return { 'order_too_small', min_order_amount }
  end
  return nil
end

local function refusal_of_merchant(merchant)
  if somebody_is_busy and busy_until(merchant) > now then
    return { 'merchant_busy', busy_until(merchant) - now }
  elseif merchant_rate and levels[merchant] < TOKEN then
    return rate_limited('merchant', levels[merchant], merchant_rate, later[merchant] or now, now)
  end
  return nil
end

-- Nearly every coupon is redeemed once, with nothing in its way. While it shares its record it was never used: what it
-- shares and the redemption are its own record then. An extension only lifts the expiry, so it is not asked. Whatever
-- might be in its way leaves the coupon to be decided as all others are.
local is_simple = not (closed or config.holder_limits or state.recount or state.is_undoing)
local own, rows, records, changed = read_own(state, sequences), read_rows(state, sequences), {}, {}
local first_uses, used, results = {}, 0, {}

local function use_first(sequence, merchant, order, order_amount)
  local row = not records[sequence] and not own[sequence] and rows[sequence - sequence % state.row_size]
  local shared_at = row and find_part(state, row, sequence)
  if not shared_at then
    return nil
  end
  local status, applied, _, issued_at, starts_at, expires_at = struct.unpack(HEAD, row, shared_at)
  if status ~= ISSUED or now < starts_at or expires_at <= now
    or refusal_of_amount(order_amount) or refusal_of_merchant(merchant) then
    return nil
  end
  local discount = discount_of(percent, config.amount, order_amount)
  local packed = struct.pack(USED, REDEEMED, applied, 1, issued_at, starts_at, expires_at, 0, '', '', COMMITTED, now, 0,
    discount, #merchant, merchant, #order, order)
  own[sequence] = packed
  local place = sequence % state.hash_size
  local fields = first_uses[sequence - place]
  if fields then
    local last = #fields
    fields[last + 1], fields[last + 2] = place, packed
  else
    first_uses[sequence - place] = { place, packed }
  end
  used = used + 1
  charge(merchant)
  return discount
end

-- Everybody else. The store makes a script's functions anew at every call, and these only for a batch that needs them.
local function open_decisions()
  -- Uses     coupon, holder_limits

  local function find(sequence)
    local record = records[sequence] or load_record(state, sequence, now)
    records[sequence] = record
    return record
  end

  local holders = config.holder_limits and open_holders(state_key, config.holder_limits, find)

  local function refusal(record, merchant, order, order_amount)
    local status = record.status
    if status == REDEEMED then
      return { 'already_redeemed' }
    elseif status == DEACTIVATED then
      return { 'deactivated' }
    elseif status == EXPIRED then
      return { 'expired', record.expires_at }
    elseif status == RESERVED then
      return { 'reserved_elsewhere', record.redemption.hold_until - now }
    elseif closed or now < record.starts_at then
      return { 'not_yet_valid', record.starts_at, record.expires_at }
    end
    return refusal_of_amount(order_amount)
      or record.attempts >= max_attempts and { 'too_many_attempts' }
      or holders and holders.refusal(merchant, order)
      or refusal_of_merchant(merchant)
  end

  local function decide(sequence, merchant, order, order_amount, hold_ms)
    local record = records[sequence]
    if not record then
      record = open_coupon(state, sequence, now, own[sequence], rows[sequence - sequence % state.row_size])
      records[sequence] = record
    end
    if not record then
      return { 'unknown_code' }
    end
    local redemption = record.redemption
    if redemption and redemption.merchant == merchant and redemption.order == order
      and (record.status == RESERVED or record.status == REDEEMED) then
      return describe_redemption('replayed', record)
    end
    local comes_back = record.stored_status == EXPIRED and record.status == ISSUED
    if comes_back and not affords(state, record) then
      record.status = EXPIRED
    end
    local refused = refusal(record, merchant, order, order_amount)
    if refused then
      return refused
    end
    if comes_back then
      state.set_aside = (state.set_aside or 0) + worth(state, record)
    end
    if redemption then
      keep_before_next_use(record, state.extensions)
    end
    local attempt, discount = record.attempts + 1, discount_of(percent, worth(state, record), order_amount)
    record.status = hold_ms > 0 and RESERVED or REDEEMED
    record.attempts = attempt
    record.redemption = {
      status = hold_ms > 0 and HELD or COMMITTED,
      at = now,
      hold_until = hold_ms > 0 and now + hold_ms or 0,
      discount = discount,
      merchant = merchant,
      order = order,
    }
    if holders then
      holders.note(record)
    end
    charge(merchant)
    changed[#changed + 1] = record
    return attempt == 1 and discount or { 'redeemed', attempt, discount }
  end

  -- What came of each tells who was reserved, or redeemed.
  local function record_some(event_type, are_held)
    local told, merchants, orders, discounts, attempts = {}, {}, {}, {}, {}
    for i = 1, #results do
      local attempt, discount = 1, results[i]
      if type(discount) == 'table' then
        attempt, discount = discount[1] == 'redeemed' and discount[2], discount[3]
      end
      if attempt and (holds_ms[i] > 0) == are_held then
        local last = #told + 1
        told[last], merchants[last], orders[last] = sequences[i], merchant_ids[i], order_ids[i]
        discounts[last], attempts[last] = discount, attempt
      end
    end
    if #told > 0 then
      record_redemptions(state_key, event_type, told, merchants, orders, discounts, attempts)
    end
  end

  local function save_decided()
    for _, record in ipairs(changed) do
      save_record(state_key, state, record.sequence, record)
    end
    record_some('coupon.reserved', true)
    record_some('coupon.redeemed', false)
  end

  return decide, save_decided
end

local decide, save_decided
for i = 1, #sequences do
  local sequence, merchant, order, order_amount = sequences[i], merchant_ids[i], order_ids[i], order_amounts[i]
  local discount = is_simple and holds_ms[i] == 0 and use_first(sequence, merchant, order, order_amount)
  if not (discount or decide) then
    decide, save_decided = open_decisions()
  end
  results[i] = discount or decide(sequence, merchant, order, order_amount, holds_ms[i])
end

if used + #changed > 0 then
  for first, fields in pairs(first_uses) do
    local key = record_place(state, first)
    for from = 1, #fields, MOST_VALUES do
      redis.call('HSET', key, unpack(fields, from, math.min(from + MOST_VALUES - 1, #fields)))
    end
  end
  state.outstanding, state.redeemed = state.outstanding - used, state.redeemed + used
  if decide then
    save_decided()
  else
    -- All were redeemed at their first attempt, so that what was asked tells it.
    record_redemptions(state_key, 'coupon.redeemed', sequences, merchant_ids, order_ids, results, 1)
  end
  write_buckets()
  save_ledger(state_key, state)
end
return cmsgpack.pack({ now, results })
