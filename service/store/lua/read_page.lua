-- The next coupons of a shard as they stand now, each with its latest redemption.
-- Uses     clock, state, block, coupon
-- KEYS[1]  the shard's state
-- ARGV     first sequence, the most coupons to read
-- Returns  false for an unknown shard, else {where the next page begins, coupons issued, {{sequence, {coupon, status,
--          user, issued_at, starts_at, expires_at}, false or {redemption, attempt, status, at, discount, hold_until,
--          merchant, order}}, …}}
local state = load_state(KEYS[1])
if not state then
  return false
end
local now, page = now_ms(), {}
local first = tonumber(ARGV[1])
local last = math.min(state.issued, first + tonumber(ARGV[2]))
local sequences = {}
for sequence = first, last - 1 do
  sequences[#sequences + 1] = sequence
end
local own, rows = read_own(state, sequences), read_rows(state, sequences)
for _, sequence in ipairs(sequences) do
  local record = open_coupon(state, sequence, now, own[sequence], rows[sequence - sequence % state.row_size])
  if record then
    page[#page + 1] = { sequence, describe_coupon('coupon', state, record),
      record.redemption and describe_redemption('redemption', record) or false }
  end
end
return { last, state.issued, page }
