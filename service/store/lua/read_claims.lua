-- Which of a batch of claims of one shard have their coupon already.
-- Uses     state
-- KEYS[1]  the shard's state
-- ARGV[1]  MessagePack: user, bucket of users, user, bucket, …
-- ARGV[2]  the claims' 8-byte digests, one after the other
-- Returns  1 or 0 for each
local CLAIM_BYTES = 13

local function is_claimed(user, bucket, digest)
  local packed = redis.call('HGET', key_of(KEYS[1], 'users:' .. bucket), user) or ''
  for at = #packed % CLAIM_BYTES + 1, #packed, CLAIM_BYTES do
    if string.sub(packed, at, at + 7) == digest then
      return 1
    end
  end
  return 0
end

local requests, claimed = cmsgpack.unpack(ARGV[1]), {}
for i = 1, #requests / 2 do
  claimed[i] = is_claimed(requests[2 * i - 1], requests[2 * i], string.sub(ARGV[2], 8 * i - 7, 8 * i))
end
return claimed
