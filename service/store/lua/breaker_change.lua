-- Changes one record if nobody else has changed it first, tells every replica, and enters it in the history.
-- KEYS[1]  the breaker's state
-- KEYS[2]  its history, a stream
-- ARGV[1]  what the names of the record's fields end in: nothing for the whole, :<campaign> for a campaign
-- ARGV[2]  the epoch the proposal was built on
-- ARGV[3]  the proposal's epoch
-- ARGV[4]  the proposal, or '' to forget a campaign's record
-- ARGV[5]  the channel
-- ARGV[6]  what the channel is told
-- ARGV[7]  the entry in the history
-- ARGV[8]  how many entries the history keeps
-- ARGV[9]  how many fields the state may have
-- Returns  {word, record in force or ''}: changed, overtaken, full
local state_key, history_key = KEYS[1], KEYS[2]
local suffix, built_on, epoch, proposal = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local channel, message, entry = ARGV[5], ARGV[6], ARGV[7]
local most_entries, most_fields = ARGV[8], tonumber(ARGV[9])
local epoch_field, record_field = 'epoch' .. suffix, 'record' .. suffix

local state = redis.call('HMGET', state_key, epoch_field, record_field)
if (state[1] or '0') ~= built_on then
  return { 'overtaken', state[2] or '' }
end
if not state[1] and suffix ~= '' and redis.call('HLEN', state_key) >= most_fields then
  return { 'full', '' }
end
if proposal == '' then
  redis.call('HDEL', state_key, epoch_field, record_field)
  return { 'changed', '' }
end
redis.call('HSET', state_key, epoch_field, epoch, record_field, proposal)
redis.call('XADD', history_key, 'MAXLEN', '~', most_entries, '*', 'type', 'breaker.changed', 'data', entry)
redis.call('PUBLISH', channel, message)
return { 'changed', proposal }
