-- One replica's sign of life: leaves its vote, forgets the replicas that fell silent, reads the shared record.
-- KEYS[1]  the breaker's state
-- KEYS[2]  the replicas' votes
-- ARGV[1]  the replica
-- ARGV[2]  why it is sick, empty when it is well
-- ARGV[3]  milliseconds after which an unchanged vote is written anew: reading must not cost a disk write each time
-- ARGV[4]  milliseconds of silence after which a replica no longer counts
-- Returns  {now, record or '', replica, reason, replica, reason, …}
local state_key, votes_key = KEYS[1], KEYS[2]
local replica, sick = ARGV[1], ARGV[2]
local renewed_after, silent_after = tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_ms()

local answer = { string.format('%.0f', now), redis.call('HGET', state_key, 'record') or '', replica, sick }
local votes = redis.call('HGETALL', votes_key)
local renew = true
for at = 1, #votes, 2 do
  local voter = votes[at]
  local reason, seen = string.match(votes[at + 1], '^(.*)|(%d+)$')
  local age = now - tonumber(seen)
  if voter == replica then
    renew = reason ~= sick or age >= renewed_after
  elseif age >= silent_after then
    redis.call('HDEL', votes_key, voter)
  else
    answer[#answer + 1] = voter
    answer[#answer + 1] = reason
  end
end
if renew then
  redis.call('HSET', votes_key, replica, string.format('%s|%.0f', sick, now))
end
return answer
