-- The sequences that a user's packed claims name, in the order of their issue: 13 bytes each, behind an optional level
-- of his own bucket, whose 12 bytes the length tells.
-- Uses     state
local function claimed_sequences(state_key, bucket, user)
  local packed = redis.call('HGET', key_of(state_key, 'users:' .. bucket), user) or ''
  local sequences = {}
  for at = #packed % 13 + 1, #packed, 13 do
    sequences[#sequences + 1] = struct.unpack('>I5', packed, at + 8)
  end
  return sequences
end
