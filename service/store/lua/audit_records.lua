-- The statuses and drawn amounts of the next coupons as their records have them, and the last event that led to them.
-- Uses     events, record
-- KEYS[1]  the shard's state
-- ARGV     first sequence (a multiple of a block), how many blocks to look at
-- Returns  {last event, a byte a coupon: its status, 0 where there is no record; eight bytes a coupon: what it has drawn, 0
--          where it has not, or nothing if none has}
local NOT_DRAWN = string.rep('\0', 8)
local first, blocks = tonumber(ARGV[1]), tonumber(ARGV[2])
local statuses, amounts, drawn = {}, {}, false
for sequence = first, first + (blocks - 1) * BLOCK, BLOCK do
  local block, found = redis.call('HGETALL', block_key(KEYS[1], sequence)), {}
  for at = 1, #block, 2 do
    found[tonumber(block[at])] = unpack_record(block[at + 1])
  end
  for position = 0, BLOCK - 1 do
    local record = found[position] or { status = 0 }
    statuses[#statuses + 1] = string.char(record.status)
    amounts[#amounts + 1] = record.amount and struct.pack('>I8', record.amount) or NOT_DRAWN
    drawn = drawn or record.amount ~= nil
  end
end
return { newest_event(KEYS[1]), table.concat(statuses), drawn and table.concat(amounts) or '' }
