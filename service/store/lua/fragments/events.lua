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

-- Reservations or redemptions; their coupons stay in the order of the batch, and four values are told of each.
local function redemption_event()
  return { coupons = {}, redemptions = {} }
end

-- By place, which versions that know each redemption as a list of its own stop at.
local function record_redemptions(state_key, type, event)
  if #event.coupons > 0 then
    record_event(state_key, type, { event.coupons, event.redemptions, event.reason or false })
  end
end

local function tell_redemption(event, sequence, attempt, merchant, order, discount)
  local told, last = event.redemptions, #event.redemptions
  add_to_runs(event.coupons, sequence)
  told[last + 1], told[last + 2], told[last + 3], told[last + 4] = attempt, merchant, order, discount
end

local function newest_event(state_key)
  local newest = redis.call('XREVRANGE', key_of(state_key, 'events'), '+', '-', 'COUNT', 1)
  return newest[1] and newest[1][1] or redis.call('HGET', key_of(state_key, 'export'), 'id') or '0-0'
end
