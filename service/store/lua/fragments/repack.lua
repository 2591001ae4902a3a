-- Packs a coupon's record again after a change.
-- Uses     record
-- c0 is amount and marks, packed already.
local UNUSED = HEAD_AND_USER .. 'c0'
local USED = UNUSED .. TAIL

-- In one go: a text that is put together from others costs more.
local function pack_record(record)
  local status, applied, user, redemption, own = record.status, record.applied, record.user, record.redemption, ''
  if record.amount then
    status, own = status + DRAWN, struct.pack('>I6', record.amount)
  end
  if record.marks then
    applied, own = applied + MARKED, own .. struct.pack(TEXT, #record.marks, record.marks)
  end
  if not redemption then
    return struct.pack(UNUSED, status, applied, record.attempts, record.issued_at, record.starts_at,
      record.stored_expires_at, #user, user, own)
  end
  local merchant, order = redemption.merchant, redemption.order
  return struct.pack(USED, status, applied, record.attempts, record.issued_at, record.starts_at,
    record.stored_expires_at, #user, user, own, redemption.status, redemption.at, redemption.hold_until,
    redemption.discount, #merchant, merchant, #order, order)
end
