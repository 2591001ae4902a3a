-- Recounts a shard from its records, a bounded number a call, and compares it with the ledger at the end. What has been
-- recounted is moved along by every later change (move_record), so both speak of the same instant when they meet.
-- Uses     clock, state, record, names, whole_block, coupon
-- KEYS[1]  the shard's state
-- ARGV     the most coupons to look at (a multiple of a block), the most records to name
-- Returns  false for an unknown shard, else {coupons looked at so far, coupons issued, 1 at the end}
local state_key, most, most_named = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local state = load_state(state_key)
if not state then
  return false
end
local recount = state.recount or { next = 0, counts = { 0, 0, 0, 0, 0 }, money = 0, wrong = 0, named = {} }
local holds = key_of(state_key, 'holds')

-- Whether the record is there, can be read, and says the same of its coupon in all its parts.
local function is_sound(sequence, readable, record)
  local redemption = readable and record.redemption and record.redemption.status
  if not readable or not STATUS_WORDS[record.status] then
    return false
  elseif record.status == REDEEMED then
    return redemption == COMMITTED
  elseif record.status == RESERVED then
    return redemption == HELD and redis.call('ZSCORE', holds, sequence) ~= false
  end
  return redemption ~= COMMITTED and redemption ~= HELD
end

local last = math.min(state.issued, recount.next + most)
while recount.next < last do
  local first = recount.next
  local block_end = math.min(last, first - first % state.block_size + state.block_size)
  local records = read_records(state, first).records
  for sequence = first, block_end - 1 do
    local readable, record = pcall(unpack_record, records[sequence % state.block_size])
    if readable and STATUS_WORDS[record.status] then
      recount.counts[record.status] = recount.counts[record.status] + 1
      recount.money = recount.money + committed_in(state, record, record.status)
    end
    if not is_sound(sequence, readable, record) then
      recount.wrong = recount.wrong + 1
      recount.named[#recount.named + 1] = #recount.named < most_named and sequence or nil
    end
  end
  recount.next = block_end
end

if recount.next < state.issued then
  redis.call('HSET', state_key, 'recount', cmsgpack.pack(recount))
  return { recount.next, state.issued, 0 }
end
local coupons = 0
for status, name in ipairs(LEDGER) do
  coupons = coupons + math.abs(state[name] - recount.counts[status])
end
redis.call('HSET', state_key, 'recounted', cmsgpack.pack({ at = now_ms(), coupons = coupons,
  money = state.committed - recount.money, wrong = recount.wrong, named = recount.named }))
redis.call('HDEL', state_key, 'recount')
return { state.issued, state.issued, 1 }
