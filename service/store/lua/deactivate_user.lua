-- Deactivates all coupons of one user and returns their money to the budget.
-- Uses     state, claims, deactivation
-- KEYS[1]  the shard's state
-- ARGV     bucket of users, user, reason
-- Returns  false for an unknown shard, else sequence, result, sequence, result, …: see the fragment deactivation
local state = load_state(KEYS[1])
if not state then
  return false
end
local sequences, reply = claimed_sequences(KEYS[1], ARGV[1], ARGV[2]), {}
for i, result in ipairs(deactivate(KEYS[1], state, sequences, ARGV[3])) do
  reply[2 * i - 1] = sequences[i]
  reply[2 * i] = result
end
return reply
