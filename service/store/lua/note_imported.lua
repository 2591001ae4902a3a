-- Notes that codes with a prefix were imported, unless one of them could begin with another such prefix as well.
-- KEYS     prefixes of imported codes
-- ARGV     prefix
-- Returns  false once it is noted, or the prefix that it overlaps
local prefix = ARGV[1]
for _, other in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local shared = math.min(#prefix, #other)
  if prefix ~= other and string.sub(prefix, 1, shared) == string.sub(other, 1, shared) then
    return other
  end
end
redis.call('SADD', KEYS[1], prefix)
return false
