-- Token buckets in whole micro-tokens: a rate of a thousandth of a token a second is one micro-token a millisecond.
local TOKEN = 1000000

-- The level now; a bucket that was never charged is full. A clock that steps back adds nothing.
local function bucket_level(tokens, at, rate, now)
  local full = rate.burst * TOKEN
  if not tokens then
    return full
  end
  local level = now > at and tokens + (now - at) * rate.per_second_milli or tokens
  return level < full and level or full
end

-- What merchants can redeem in `left_ms` beyond the coupons that are out, as a bucket of its own: its level and rate.
-- Exact up to thousands of millions of coupons, beyond that to one in as many.
local function redemption_bucket(state, per_second_milli, left_ms)
  local room = left_ms * per_second_milli
  return room - (state.outstanding + state.reserved) * TOKEN,
    { burst = math.floor(room / TOKEN), per_second_milli = per_second_milli }
end

-- After a clock has stepped back, nothing is added before it is again when the bucket was charged.
local function rate_limited(name, level, rate, at, now)
  local retry_after_ms = math.max(0, at - now) + math.ceil((TOKEN - level) / rate.per_second_milli)
  return { 'rate_limited', name, rate.burst, rate.per_second_milli, retry_after_ms }
end
