-- Releases a reservation: the coupon is free again.
-- Uses     record, settle
-- KEYS[1]  the shard's state
-- ARGV     sequence, attempt, reason
-- Returns  false for an unknown shard, else {settled or replayed, attempt, status, at, discount, hold_until, merchant,
--          order}, or {unknown_code}, {wrong_status, status or superseded}
return settle(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), { RESERVED, HELD }, { ISSUED, RELEASED },
  'coupon.released', ARGV[3])
