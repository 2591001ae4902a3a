-- What commit, release and rollback share: one attempt on one coupon moves on to another status, once.
-- `from` and `to` are {coupon status, redemption status}; asking again for what already holds replays it.
-- Uses     clock, state, events, record, names, coupon, sweep
local function settle(state_key, sequence, attempt, from, to, event_type, reason)
  local state = load_state(state_key)
  if not state then
    return false
  end
  local now = now_ms()
  local record = load_record(state, sequence, now)
  if not record or record.attempts < attempt or attempt < 1 then
    return { 'unknown_code' }
  elseif record.attempts ~= attempt then
    return { 'wrong_status', 'superseded' }
  end
  local redemption = record.redemption
  if redemption.status == to[2] then
    return describe_redemption('replayed', record)
  elseif record.status ~= from[1] or redemption.status ~= from[2] then
    return { 'wrong_status', REDEMPTION_WORDS[redemption.status] }
  end
  record.status = to[1]
  redemption.status = to[2]
  redemption.hold_until = 0
  bring_up_to_date(record, state, now)
  save_record(state_key, state, sequence, record)
  save_ledger(state_key, state)
  if record.status == ISSUED then
    wake_sweep(state_key, record.expires_at)
  end
  if record.status == REDEEMED then
    record_redemptions(state_key, event_type, { sequence }, { redemption.merchant }, { redemption.order },
      { redemption.discount }, { attempt }, reason)
  else
    record_coupon_event(state_key, event_type, { coupons = { sequence, 1 }, attempt = attempt, reason = reason })
  end
  if record.status == EXPIRED then
    record_coupon_event(state_key, 'coupon.expired', { coupons = { sequence, 1 } })
  end
  return describe_redemption('settled', record)
end
