-- A coupon's packed record, big-endian: status, extensions applied, attempts, issued, starts and expires at (ms), user;
-- the amount, if it was drawn from a pot, which DRAWN added to the status tells; the marks, which MARKED added to the
-- extensions applied tells; and, once there was a redemption, its status, at, hold until, discount, merchant, order.
-- Bc0 is a text behind a byte that tells its length.
local TEXT = 'Bc0'
local HEAD, TAIL = '>BBI2I6I6I6', '>BI6I6I6Bc0Bc0'
local HEAD_AND_USER = HEAD .. TEXT
-- Added to the status, and to the extensions applied; no record that has neither is longer for them.
local DRAWN, MARKED = 128, 128
local ISSUED_AT, EXPIRES_AT, HEAD_BYTES = 5, 17, 22
local ISSUED, RESERVED, REDEEMED, EXPIRED, DEACTIVATED = 1, 2, 3, 4, 5
local HELD, COMMITTED, RELEASED, ROLLED_BACK = 1, 2, 3, 4

-- The record whose head begins at that byte, and where it ends. All fields stand in one constructor: a table that grows
-- field by field is laid out anew each time it doubles.
local function unpack_head(packed, at, sequence)
  local status, applied, attempts, issued_at, starts_at, expires_at, ends = struct.unpack(HEAD, packed, at)
  return { sequence = sequence, user = '', status = status, stored_status = status, applied = applied,
    attempts = attempts, issued_at = issued_at, starts_at = starts_at, expires_at = expires_at,
    stored_expires_at = expires_at }, ends
end

local function unpack_record(packed, sequence)
  local record, at = unpack_head(packed, 1, sequence)
  record.user, at = struct.unpack(TEXT, packed, at)
  if record.status > DRAWN then
    record.status = record.status - DRAWN
    record.stored_status = record.status
    record.amount, at = struct.unpack('>I6', packed, at)
  end
  if record.applied >= MARKED then
    record.applied = record.applied - MARKED
    record.marks, at = struct.unpack(TEXT, packed, at)
  end
  if at <= #packed then
    local status, redeemed_at, hold_until, discount, merchant, order = struct.unpack(TAIL, packed, at)
    record.redemption = { status = status, at = redeemed_at, hold_until = hold_until, discount = discount,
      merchant = merchant, order = order }
    record.stored_redemption = record.redemption
  end
  return record
end
