-- Token buckets in whole micro-tokens: a rate of a thousandth of a token a second is one micro-token a millisecond.
local TOKEN = 1000000

-- The level now; a bucket that was never charged is full. A clock that steps back adds nothing.
local function bucket_level(tokens, at, rate, now)
  local full = rate.burst * TOKEN
  if not tokens then
    return full
  end
  return math.min(full, tokens + math.max(0, now - at) * rate.per_second_milli)
end

local function rate_limited(name, level, rate)
  local retry_after_ms = math.ceil((TOKEN - level) / rate.per_second_milli)
  return { 'rate_limited', name, rate.burst, rate.per_second_milli, retry_after_ms }
end
