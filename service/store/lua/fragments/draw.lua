-- Red envelopes: each coupon draws its share of the shard's pot when it is issued.
--
-- The doubled average: of what is left above everybody's least share, a share takes a random part between nothing and
-- twice the average, so that its mean is the average, early and late; the last takes what is left. The bound is
-- rounded up as often as its fraction says, so that rounding favours nobody either.
-- Uses     state
local RANDOM_DIGITS, RANDOM_NUMBERS = 13, 2 ^ 52
local MOST_TRIES = 64

-- A batch's draws from the shard's pot: `draw(sequence)` draws and returns a coupon's amount, `total` is what was drawn
-- so far, and `close()` writes it into the ledger and returns the amounts in order. Nil where the campaign has no pot.
local function open_pot(state_key, config, seed)
  if not config.pot then
    return nil
  end
  local left = config.pot - tonumber(redis.call('HGET', state_key, 'issued_amount') or 0)
  local least, amounts, pot = config.min_share, {}, { total = 0 }

  -- A whole number from 0 to bound - 1, all equally likely: numbers of an incomplete last round are drawn again. It
  -- follows from a seed that no client knows, and differs for each purpose.
  local function random_below(bound, purpose)
    local whole_rounds = RANDOM_NUMBERS - RANDOM_NUMBERS % bound
    local number
    for try = 1, MOST_TRIES do
      local digest = redis.sha1hex(seed .. purpose .. ':' .. try)
      number = tonumber(string.sub(digest, 1, RANDOM_DIGITS), 16)
      if number < whole_rounds then
        break
      end
    end
    return number % bound
  end

  local function draw_share(shares, sequence)
    if shares == 1 then
      return left
    end
    local twice_spare = 2 * (left - shares * least)
    local most = math.floor(twice_spare / shares)
    if random_below(shares, 'bound:' .. sequence) < twice_spare % shares then
      most = most + 1
    end
    return least + random_below(most + 1, 'share:' .. sequence)
  end

  function pot.draw(sequence)
    local amount = draw_share(config.max_coupons - sequence, integer(sequence))
    left = left - amount
    pot.total = pot.total + amount
    amounts[#amounts + 1] = amount
    return amount
  end

  function pot.close()
    redis.call('HINCRBY', state_key, 'issued_amount', pot.total)
    redis.call('HINCRBY', state_key, 'outstanding_amount', pot.total)
    return amounts
  end
  return pot
end
