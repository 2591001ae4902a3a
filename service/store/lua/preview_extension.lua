-- Counts what an extension made now would change, over the next coupons; writes nothing.
-- KEYS[1]  the shard's state
-- ARGV     first sequence, until, the most coupons to look at
-- Returns  false for an unknown shard, else {coupons looked at so far, coupons issued, coupons that would change here}
local state = load_state(KEYS[1])
if not state then
  return false
end
local first, until_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local now, changed = now_ms(), 0
local last = math.min(state.issued, first + tonumber(ARGV[3]))
for sequence = first, last - 1 do
  local record = load_record(KEYS[1], state, sequence, now)
  if (record.status == ISSUED or record.status == RESERVED) and record.expires_at > now
    and record.expires_at < until_ms then
    changed = changed + 1
  end
end
return { last, state.issued, changed }
