-- What the events tell of coupons: which, in runs of first and count, so that neighbours cost next to nothing. Each
-- event says by its type what its coupons have become; together they rebuild every counter (service/domain/ledger.py).
-- Uses     state
local function add_to_runs(runs, sequence, count)
  local last = #runs
  count = count or 1
  if last > 0 and runs[last - 1] + runs[last] == sequence then
    runs[last] = runs[last] + count
  else
    runs[last + 1], runs[last + 2] = sequence, count
  end
end

-- An event is only recorded if it concerns anybody.
local function record_coupon_event(state_key, type, data)
  if #data.coupons > 0 then
    record_event(state_key, type, data)
  end
end

-- Reservations or redemptions: a list of each of their values, in the order of the batch. `attempts` is 1 where each is
-- its coupon's first. Versions that know other forms stop at it.
local function record_redemptions(state_key, type, sequences, merchants, orders, discounts, attempts, reason)
  record_event(state_key, type, { sequences, merchants, orders, discounts, attempts, reason or false })
end

local function newest_event(state_key)
  local newest = redis.call('XREVRANGE', key_of(state_key, 'events'), '+', '-', 'COUNT', 1)
  return newest[1] and newest[1][1] or redis.call('HGET', key_of(state_key, 'export'), 'id') or '0-0'
end
