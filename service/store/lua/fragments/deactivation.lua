-- Takes coupons out of use, each that is free, and returns their money to the budget. One that an extension would bring
-- back but for want of budget has none to return, and must not come back later. For each sequence a result:
-- {deactivated, status, user, issued_at, starts_at, expires_at}, or {word, …}: unknown_code, already_redeemed,
-- expired (at), reserved_elsewhere (retry_after_ms).
-- Uses     clock, state, events, record, coupon
local function deactivate(state_key, state, sequences, reason)
  local now, results, event = now_ms(), {}, { coupons = {}, reason = reason }

  local function decide(sequence, record)
    if not record then
      return { 'unknown_code' }
    elseif record.status == REDEEMED then
      return { 'already_redeemed' }
    elseif record.status == RESERVED then
      return { 'reserved_elsewhere', record.redemption.hold_until - now }
    elseif record.status == EXPIRED and record.expires_at <= now then
      return { 'expired', record.expires_at }
    elseif record.status ~= DEACTIVATED then
      record.status = DEACTIVATED
      save_record(state_key, state, sequence, record)
      add_to_runs(event.coupons, sequence)
    end
    return describe_coupon('deactivated', state, record)
  end

  -- One after the other: one that is named twice is deactivated once.
  for i, sequence in ipairs(sequences) do
    results[i] = decide(sequence, load_record(state, sequence, now))
  end
  if #event.coupons > 0 then
    save_ledger(state_key, state)
  end
  record_coupon_event(state_key, 'coupon.deactivated', event)
  return results
end
