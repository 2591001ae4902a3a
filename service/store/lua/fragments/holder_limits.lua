-- Limits of redeem on those who hold coupons, counted over a batch whose grants are not written yet.
-- Uses     state, holders

-- Returns `refusal`, which a limit gives, and `note` for what is granted. `find` returns the record of a sequence as it
-- stands now. The records decide what an order holds: a reservation that has lapsed may still be in the index.
local function open_holders(state_key, limits, find)
  local merchants, orders = {}, {}

  local function held_by_merchant(merchant)
    merchants[merchant] = merchants[merchant]
      or tonumber(redis.call('HGET', key_of(state_key, 'holders'), merchant) or 0)
    return merchants[merchant]
  end

  local function count_order(merchant, order)
    local held, key, field = 0, order_place(state_key, limits, { merchant = merchant, order = order })
    for _, sequence in ipairs(order_sequences(key, field)) do
      local record = find(sequence)
      local holder = is_held(record.status) and record.redemption
      if holder and holder.merchant == merchant and holder.order == order then
        held = held + 1
      end
    end
    return held
  end

  local function held_by_order(merchant, order)
    local name = merchant .. '\0' .. order
    orders[name] = orders[name] or count_order(merchant, order)
    return orders[name]
  end

  local function refusal(merchant, order)
    if limits.per_order and held_by_order(merchant, order) >= limits.per_order then
      return { 'per_order_limit' }
    elseif limits.per_merchant and held_by_merchant(merchant) >= limits.per_merchant then
      return { 'per_merchant_limit' }
    end
    return nil
  end

  -- The batch has granted the coupon to its new redemption, and so taken it from one that had lapsed.
  local function note(record)
    local merchant, order = record.redemption.merchant, record.redemption.order
    if limits.per_merchant then
      merchants[merchant] = held_by_merchant(merchant) + 1
      local before = is_held(record.stored_status) and record.stored_redemption
      if before then
        merchants[before.merchant] = held_by_merchant(before.merchant) - 1
      end
    end
    if limits.per_order then
      orders[merchant .. '\0' .. order] = held_by_order(merchant, order) + 1
    end
  end

  return { refusal = refusal, note = note }
end
