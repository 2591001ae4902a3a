-- One shard's ledger and bucket as they stand now.
-- KEYS[1]  the shard's state
-- Returns  false for an unknown shard, else {now, version, micro-tokens, extensions, issued, outstanding, reserved,
--          redeemed, expired, deactivated, committed}
local state = load_state(KEYS[1])
if not state then
  return false
end
local now = now_ms()
local level = bucket_level(state.tokens, state.tokens_at, state.config.issue_rate, now)
local reply = { now, state.config.version, level, #state.extensions }
for _, name in ipairs(COUNTERS) do
  reply[#reply + 1] = state[name]
end
return reply
