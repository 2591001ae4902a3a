-- Takes a redemption back: the coupon is free again, or expired if its time is over.
-- Uses     record, settle
-- KEYS[1]  the shard's state
-- ARGV     sequence, attempt, reason
-- Returns  false for an unknown shard, else {settled or replayed, attempt, status, at, discount, hold_until, merchant,
--          order}, or {unknown_code}, {wrong_status, status or superseded}
return settle(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), { REDEEMED, COMMITTED }, { ISSUED, ROLLED_BACK },
  'coupon.rolled_back', ARGV[3])
