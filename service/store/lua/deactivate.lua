-- Deactivates a batch of coupons of one shard and returns their money to the budget.
-- Uses     state, deactivation
-- KEYS[1]  the shard's state
-- ARGV[1]  MessagePack: the sequences
-- ARGV[2]  reason
-- Returns  false for an unknown shard, else a result for each sequence: see the fragment
local state = load_state(KEYS[1])
if not state then
  return false
end
return deactivate(KEYS[1], state, cmsgpack.unpack(ARGV[1]), ARGV[2])
