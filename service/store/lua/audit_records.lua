-- The statuses and drawn amounts of the next coupons as their records have them, and the last event that led to them.
-- Uses     state, events, record, whole_block
-- KEYS[1]  the shard's state
-- ARGV     first sequence (the first of a block), how many coupons to look at (a multiple of a block)
-- Returns  {last event, a byte a coupon: its status, 0 where there is no record; eight bytes a coupon: what it has
--          drawn, 0 where it has not, or nothing if none has}
local NOT_DRAWN = string.rep('\0', 8)
local state, first, coupons = load_state(KEYS[1]), tonumber(ARGV[1]), tonumber(ARGV[2])
local statuses, amounts, drawn = {}, {}, false
for base = first, first + coupons - 1, state.block_size do
  local records = read_records(state, base).records
  for place = 0, state.block_size - 1 do
    local packed = records[place]
    local status, amount = packed and string.byte(packed) or 0, nil
    if status > DRAWN then
      local record = unpack_record(packed)
      status, amount, drawn = record.status, struct.pack('>I8', record.amount), true
    end
    statuses[#statuses + 1] = string.char(status)
    amounts[#amounts + 1] = amount or NOT_DRAWN
  end
end
return { newest_event(KEYS[1]), table.concat(statuses), drawn and table.concat(amounts) or '' }
