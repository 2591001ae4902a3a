-- Records a time in which redemption was down. No time is lost twice, so it must not overlap one that is recorded.
-- KEYS[1]  the outages
-- ARGV     from, to, the most there may be, reason, actor
-- Returns  {recorded, number}, {overlaps, number of that one} or {too_many_outages}
local from_ms, to_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
local outages = redis.call('LRANGE', KEYS[1], 0, -1)
for number, packed in ipairs(outages) do
  local outage = cmsgpack.unpack(packed)
  if outage.from_ms < to_ms and from_ms < outage.to_ms then
    return { 'overlaps', number }
  end
end
if #outages >= tonumber(ARGV[3]) then
  return { 'too_many_outages' }
end
redis.call('RPUSH', KEYS[1], cmsgpack.pack({ from_ms = from_ms, to_ms = to_ms, reason = ARGV[4], actor = ARGV[5] }))
return { 'recorded', #outages + 1 }
