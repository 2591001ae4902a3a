-- One shard's ledger and bucket as they stand now.
-- Uses     clock, state, bucket, names
-- KEYS[1]  the shard's state
-- Returns  false for an unknown shard, else {now, version, micro-tokens, extensions, issued, outstanding, reserved,
--          redeemed, expired, deactivated, committed, and where amounts are drawn from a pot the money issued,
--          outstanding, reserved, redeemed, expired, deactivated}
local state_key = KEYS[1]
local state = load_state(state_key)
if not state then
  return false
end
local now = now_ms()
local level = bucket_level(state.tokens, state.tokens_at, state.config.issue_rate, now)
local reply = { now, state.config.version, level, #state.extensions }
for _, name in ipairs(COUNTERS) do
  reply[#reply + 1] = state[name]
end
if state.config.pot then
  for _, name in ipairs({ 'issued', unpack(LEDGER) }) do
    reply[#reply + 1] = tonumber(redis.call('HGET', state_key, name .. '_amount') or 0)
  end
end
return reply
