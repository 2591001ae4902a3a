-- A coupon's packed record, big-endian: status, extensions applied, attempts, issued, starts and expires at (ms),
-- user; the amount, if it was drawn from a pot, which DRAWN added to the status tells; the marks, which MARKED added to
-- the extensions applied tells; and, once there was a redemption, its status, at, hold until, discount, merchant, order.
-- Uses     benefit
-- Bc0 is a text behind a byte that tells its length.
local TEXT = 'Bc0'
local HEAD, TAIL = '>BBI2I6I6I6', '>BI6I6I6' .. TEXT .. TEXT
local HEAD_AND_USER = HEAD .. TEXT
local MARKED = 128
local ISSUED_AT, EXPIRES_AT, HEAD_BYTES = 5, 17, 22
local ISSUED, RESERVED, REDEEMED, EXPIRED, DEACTIVATED = 1, 2, 3, 4, 5
local HELD, COMMITTED, RELEASED, ROLLED_BACK = 1, 2, 3, 4

local function pack_record(record)
  local amount, marks, redemption = record.amount, record.marks, record.redemption
  local user = record.user
  local packed = struct.pack(HEAD_AND_USER, amount and record.status + DRAWN or record.status,
    marks and record.applied + MARKED or record.applied, record.attempts, record.issued_at, record.starts_at,
    record.stored_expires_at, #user, user)
  if amount then
    packed = packed .. struct.pack('>I6', amount)
  end
  if marks then
    packed = packed .. struct.pack(TEXT, #marks, marks)
  end
  if redemption then
    local merchant, order = redemption.merchant, redemption.order
    packed = packed .. struct.pack(TAIL, redemption.status, redemption.at, redemption.hold_until, redemption.discount,
      #merchant, merchant, #order, order)
  end
  return packed
end

local function unpack_redemption(packed, at)
  local status, redeemed_at, hold_until, discount, merchant, order = struct.unpack(TAIL, packed, at)
  return { status = status, at = redeemed_at, hold_until = hold_until, discount = discount, merchant = merchant,
    order = order }
end

-- All fields stand in one constructor: a table that grows field by field is laid out anew each time it doubles.
local function unpack_record(packed, sequence)
  local status, applied, attempts, issued_at, starts_at, expires_at, user, at = struct.unpack(HEAD_AND_USER, packed)
  local amount, marks, redemption
  if status > DRAWN then
    status = status - DRAWN
    amount, at = struct.unpack('>I6', packed, at)
  end
  if applied >= MARKED then
    applied = applied - MARKED
    marks, at = struct.unpack(TEXT, packed, at)
  end
  if at <= #packed then
    redemption = unpack_redemption(packed, at)
  end
  return { sequence = sequence, user = user, status = status, stored_status = status, applied = applied,
    attempts = attempts, issued_at = issued_at, starts_at = starts_at, expires_at = expires_at,
    stored_expires_at = expires_at, amount = amount, marks = marks, redemption = redemption,
    stored_redemption = redemption }
end
