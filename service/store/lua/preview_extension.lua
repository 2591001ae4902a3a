-- Counts what an extension made now would change, over the next coupons; writes nothing.
-- Uses     clock, state, extension, benefit, record, whole_block, coupon, scope
-- KEYS[1]  the shard's state
-- ARGV     first sequence (the first of a block), the most coupons to look at (a multiple of a block), MessagePack:
--          until_ms and include_expired, MessagePack: the scope; empty for every coupon
-- Returns  false for an unknown shard, else {coupons looked at so far, coupons issued, coupons that would change here,
--          how many of them are over, what they are worth, what the budget must cover again}
local state = load_state(KEYS[1])
if not state then
  return false
end
local first, extension, scope = tonumber(ARGV[1]), cmsgpack.unpack(ARGV[3]), unpack_scope(ARGV[4])
local now, changed, revived, liability, over_budget = now_ms(), 0, 0, 0, 0
extension.made_at = now
local last = math.min(state.issued, first + tonumber(ARGV[2]))
for base = first, last - 1, state.block_size do
  local block = read_records(state, base)
  for place in pairs(block.records) do
    local record = open_in_block(block, place, state, base + place)
    bring_up_to_date(record, state, now)
    local is_over = record.status == EXPIRED
    if (is_over or record.status == ISSUED or record.status == RESERVED)
      and concerns(state, extension, scope, record, record.expires_at)
      and lift(extension, record.expires_at) > record.expires_at then
      changed = changed + 1
      revived = revived + (is_over and 1 or 0)
      liability = liability + worth(state, record)
      over_budget = over_budget + (record.stored_status == EXPIRED and worth(state, record) or 0)
    end
  end
end
return { last, state.issued, changed, revived, liability, over_budget }
