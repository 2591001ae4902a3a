-- What a coupon is worth: the rules of service/domain/benefit.py. A coupon costs its campaign `config.amount` at most,
-- or, where it was drawn from a pot, the amount in its own record.

local function worth(state, record)
  return record.amount or state.config.amount
end

-- What comes off an order, `most` at most, whose amount is negative where nobody told it. Whole hundreds first: the
-- product of an amount and a percentage would lose digits.
local function discount_of(percent, most, order_amount)
  if order_amount < 0 then
    return most
  elseif percent then
    local hundreds, rest = math.floor(order_amount / 100), order_amount % 100
    return math.min(most, hundreds * percent + math.floor(rest * percent / 100))
  end
  return math.min(most, order_amount)
end

-- The ledger of drawn money, by the names of the ledger of coupons. Other coupons are all worth the same, so that
-- theirs follows from the counters.
local function move_drawn(state_key, from, to, amount)
  redis.call('HINCRBY', state_key, from .. '_amount', -amount)
  redis.call('HINCRBY', state_key, to .. '_amount', amount)
end
