-- Who holds a coupon: the order and the merchant of its reservation or redemption. Counted only where the campaign
-- limits them: for a merchant a number, for an order the sequences of its coupons, under the digest of its name.
-- Uses     state, record
local function is_held(status)
  return status == RESERVED or status == REDEEMED
end

local function order_place(state_key, limits, redemption)
  local digest = redis.sha1hex(redemption.merchant .. '\0' .. redemption.order)
  local function part(from)
    return tonumber(string.sub(digest, from, from + 7), 16)
  end
  return key_of(state_key, 'orders:' .. integer(part(1) % limits.order_buckets)),
    struct.pack('>I4I4', part(9), part(17))
end

local function order_sequences(key, field)
  local packed, sequences = redis.call('HGET', key, field) or '', {}
  for at = 1, #packed, 5 do
    sequences[#sequences + 1] = struct.unpack('>I5', packed, at)
  end
  return sequences
end

local function add_holder(state_key, limits, redemption, sequence)
  if limits.per_merchant then
    redis.call('HINCRBY', key_of(state_key, 'holders'), redemption.merchant, 1)
  end
  if limits.per_order then
    local key, field = order_place(state_key, limits, redemption)
    redis.call('HSET', key, field, (redis.call('HGET', key, field) or '') .. struct.pack('>I5', sequence))
  end
end

local function remove_holder(state_key, limits, redemption, sequence)
  if limits.per_merchant and redis.call('HINCRBY', key_of(state_key, 'holders'), redemption.merchant, -1) == 0 then
    redis.call('HDEL', key_of(state_key, 'holders'), redemption.merchant)
  end
  if limits.per_order then
    local key, field = order_place(state_key, limits, redemption)
    local kept = ''
    for _, other in ipairs(order_sequences(key, field)) do
      kept = other == sequence and kept or kept .. struct.pack('>I5', other)
    end
    if kept == '' then
      redis.call('HDEL', key, field)
    else
      redis.call('HSET', key, field, kept)
    end
  end
end

-- From the redemption that held the coupon as it was stored, to the one that holds it now; either may be nil.
local function move_holder(state_key, limits, sequence, before, after)
  if before == after then
    return
  end
  if before then
    remove_holder(state_key, limits, before, sequence)
  end
  if after then
    add_holder(state_key, limits, after, sequence)
  end
end
