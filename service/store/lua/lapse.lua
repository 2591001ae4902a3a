-- Frees the reservations whose time is over, a bounded number a call.
-- Uses     clock, state, events, record, coupon, sweep
-- KEYS[1]  the shard's state
-- ARGV     the most reservations to free
-- Returns  false for an unknown shard, else how many were due
local state = load_state(KEYS[1])
if not state then
  return false
end
local now, holds = now_ms(), key_of(KEYS[1], 'holds')
local due = redis.call('ZRANGEBYSCORE', holds, '-inf', now, 'LIMIT', 0, tonumber(ARGV[1]))
local freed, expired, wakes_at = {}, {}, nil
for _, member in ipairs(due) do
  local sequence = tonumber(member)
  local record = load_record(state, sequence, now)
  if record and record.stored_status == RESERVED then
    save_record(KEYS[1], state, sequence, record)
    add_to_runs(record.status == EXPIRED and expired or freed, sequence)
    if record.status == ISSUED then
      wakes_at = math.min(wakes_at or record.expires_at, record.expires_at)
    end
  else
    -- A record that is gone is named by the recount, and holds up nobody behind it.
    redis.call('ZREM', holds, member)
  end
end
if wakes_at then
  wake_sweep(KEYS[1], wakes_at)
end
if #freed + #expired > 0 then
  save_ledger(KEYS[1], state)
  record_coupon_event(KEYS[1], 'coupon.lapsed', { coupons = freed })
  record_coupon_event(KEYS[1], 'coupon.expired', { coupons = expired })
end
return #due
