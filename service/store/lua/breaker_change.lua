-- Changes the shared record if nobody else has changed it first, and tells every replica.
-- KEYS[1]  the breaker's state
-- ARGV[1]  the epoch the proposal was built on
-- ARGV[2]  the proposal's epoch
-- ARGV[3]  the proposal
-- ARGV[4]  the channel
-- Returns  {word, record in force or ''}: changed, overtaken
local state_key = KEYS[1]
local built_on, epoch, proposal, channel = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local state = redis.call('HMGET', state_key, 'epoch', 'record')
if (state[1] or '0') ~= built_on then
  return { 'overtaken', state[2] or '' }
end
redis.call('HSET', state_key, 'epoch', epoch, 'record', proposal)
redis.call('PUBLISH', channel, proposal)
return { 'changed', proposal }
