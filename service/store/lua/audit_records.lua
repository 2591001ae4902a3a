-- The statuses of the next coupons as their records have them, and the last event that led to them.
-- KEYS[1]  the shard's state
-- ARGV     first sequence (a multiple of a block), how many blocks to look at
-- Returns  {last event, a byte a coupon: its status, 0 where there is no record}
local first, blocks = tonumber(ARGV[1]), tonumber(ARGV[2])
local statuses = {}
for sequence = first, first + (blocks - 1) * BLOCK, BLOCK do
  local block, found = redis.call('HGETALL', block_key(KEYS[1], sequence)), {}
  for at = 1, #block, 2 do
    found[tonumber(block[at])] = string.char(unpack_record(block[at + 1]).status)
  end
  for position = 0, BLOCK - 1 do
    statuses[#statuses + 1] = found[position] or '\0'
  end
end
return { newest_event(KEYS[1]), table.concat(statuses) }
