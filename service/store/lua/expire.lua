-- Marks coupons whose validity is over and returns their money, a bounded number a call. The sequence is the index:
-- coupons are issued in its order, so the sweep stops at the first whose own rule still holds, and remembers when
-- the coupons that extensions or reservations kept alive behind it are due.
-- Uses     clock, state, events, extension, validity, record, coupon
-- KEYS[1]  the shard's state
-- ARGV     the most coupons to look at
-- Returns  false for an unknown shard, else {more or idle, expired}
local state_key, most = KEYS[1], tonumber(ARGV[1])
local state = load_state(state_key)
if not state then
  return false
end
local now = now_ms()
local sweep = redis.call('HMGET', state_key, 'swept', 'survivors_due')
local stored_swept, stored_due = tonumber(sweep[1] or 0), tonumber(sweep[2] or 0)
local swept, due = stored_swept, stored_due
if due > 0 and due <= now then
  swept, due = 0, 0
end
local last, expired, found = math.min(state.issued, swept + most), {}, 0
while swept < last do
  local record = load_record(state_key, state, swept, now)
  local _, own_expiry = window_of(state.config.validity, record.issued_at, state.extensions,
    extensions_before(state.extensions, swept), swept)
  if own_expiry > now then
    break
  end
  if record.status == EXPIRED and record.stored_status ~= EXPIRED then
    save_record(state_key, state, swept, record)
    add_to_runs(expired, swept)
    found = found + 1
  elseif record.status == ISSUED or record.status == RESERVED then
    local wakes = record.status == RESERVED and record.redemption.hold_until or record.expires_at
    due = due == 0 and wakes or math.min(due, wakes)
  end
  swept = swept + 1
end
if found > 0 then
  save_counters(state_key, state)
  record_coupon_event(state_key, 'coupon.expired', { coupons = expired })
end
if swept ~= stored_swept or due ~= stored_due then
  redis.call('HSET', state_key, 'swept', swept, 'survivors_due', due)
end
return { swept == last and swept < state.issued and 'more' or 'idle', found }
