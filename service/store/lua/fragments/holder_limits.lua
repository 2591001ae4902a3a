-- Limits of redeem on those who hold coupons, counted over a batch whose grants are not written yet.
-- Uses     state, holders

-- `find` returns the record of a sequence as it stands now. The records decide what an order holds: a reservation
-- that has lapsed may still be in the index.
local function open_holders(state_key, limits, find)
  return { state_key = state_key, limits = limits, find = find, merchants = {}, orders = {} }
end

local function held_by_merchant(holders, merchant)
  local held = holders.merchants[merchant]
  if not held then
    held = tonumber(redis.call('HGET', key_of(holders.state_key, 'holders'), merchant) or 0)
    holders.merchants[merchant] = held
  end
  return held
end

local function held_by_order(holders, merchant, order)
  local name = merchant .. '\0' .. order
  local held = holders.orders[name]
  if not held then
    held = 0
    local key, field = order_place(holders.state_key, holders.limits, { merchant = merchant, order = order })
    for _, sequence in ipairs(order_sequences(key, field)) do
      local record = holders.find(sequence)
      local holder = is_held(record.status) and record.redemption
      if holder and holder.merchant == merchant and holder.order == order then
        held = held + 1
      end
    end
    holders.orders[name] = held
  end
  return held
end

local function holder_refusal(holders, merchant, order)
  local limits = holders.limits
  if limits.per_order and held_by_order(holders, merchant, order) >= limits.per_order then
    return { 'per_order_limit' }
  elseif limits.per_merchant and held_by_merchant(holders, merchant) >= limits.per_merchant then
    return { 'per_merchant_limit' }
  end
  return nil
end

-- The batch has granted the coupon to its new redemption, and so taken it from one that had lapsed.
local function note_holder(holders, record)
  local limits, redemption = holders.limits, record.redemption
  if limits.per_merchant then
    holders.merchants[redemption.merchant] = held_by_merchant(holders, redemption.merchant) + 1
    local before = is_held(record.stored_status) and record.stored_redemption
    if before then
      holders.merchants[before.merchant] = held_by_merchant(holders, before.merchant) - 1
    end
  end
  if limits.per_order then
    local name = redemption.merchant .. '\0' .. redemption.order
    holders.orders[name] = held_by_order(holders, redemption.merchant, redemption.order) + 1
  end
end
