-- Takes coupons out of use, each that is free, and returns their money to the budget. For each sequence a result:
-- {deactivated, status, user, issued_at, starts_at, expires_at}, or {word, …}: unknown_code, already_redeemed,
-- expired (at), reserved_elsewhere (retry_after_ms).
-- Uses     clock, state, events, record, coupon
local function deactivate(state_key, state, sequences, reason)
  local now, results, changed = now_ms(), {}, {}

  local function decide(sequence, record)
    if not record then
      return { 'unknown_code' }
    elseif record.status == REDEEMED then
      return { 'already_redeemed' }
    elseif record.status == RESERVED then
      return { 'reserved_elsewhere', record.redemption.hold_until - now }
    elseif record.status == EXPIRED then
      return { 'expired', record.expires_at }
    elseif record.status == ISSUED then
      record.status = DEACTIVATED
      changed[#changed + 1] = { sequence, record }
    end
    return describe_coupon('deactivated', record)
  end

  local records = {}
  for i, sequence in ipairs(sequences) do
    records[sequence] = records[sequence] or load_record(state_key, state, sequence, now)
    results[i] = decide(sequence, records[sequence])
  end
  local event = { coupons = {}, reason = reason }
  for _, change in ipairs(changed) do
    save_record(state_key, state, change[1], change[2])
    add_to_runs(event.coupons, change[1])
  end
  if #changed > 0 then
    save_counters(state_key, state)
  end
  record_coupon_event(state_key, 'coupon.deactivated', event)
  return results
end
