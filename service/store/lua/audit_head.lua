-- One shard's counters, and the last event that led to them.
-- Uses     state, events
-- KEYS[1]  the shard's state
-- Returns  false for an unknown shard, else {last event, issued, outstanding, reserved, redeemed, expired, deactivated,
--          committed}
local state = load_state(KEYS[1])
if not state then
  return false
end
local reply = { newest_event(KEYS[1]) }
for _, name in ipairs(COUNTERS) do
  reply[#reply + 1] = state[name]
end
return reply
