-- One replica's sign of life: leaves its ballot, forgets the replicas that fell silent, reads what is in force.
-- Uses     clock
-- KEYS[1]  the breaker's state
-- KEYS[2]  the replicas' ballots
-- KEYS[3]  the store's vital signs, which one replica reads for all
-- ARGV[1]  the replica
-- ARGV[2]  its ballot
-- ARGV[3]  milliseconds after which an unchanged ballot is written anew: reading must not cost a disk write each time
-- ARGV[4]  milliseconds of silence after which a replica no longer counts
-- ARGV[5]  vital signs that this replica has read, or ''
-- ARGV[6]  milliseconds after which they are due again
-- Returns  {now, 1 if this replica is to read the vital signs, vital signs or '', {field, value, … of the state},
--          {replica, ballot, …}}
local state_key, ballots_key, vitals_key = KEYS[1], KEYS[2], KEYS[3]
local replica, ballot = ARGV[1], ARGV[2]
local renewed_after, silent_after = tonumber(ARGV[3]), tonumber(ARGV[4])
local vitals, due_after = ARGV[5], tonumber(ARGV[6])
local now = now_ms()

local known = redis.call('HMGET', vitals_key, 'asked_at', 'signs')
local is_due = now - tonumber(known[1] or '0') >= due_after
local ballots = { replica, ballot }
local silent = {}
local renew = true
local held = redis.call('HGETALL', ballots_key)
for at = 1, #held, 2 do
  local voter = held[at]
  local seen, cast = string.match(held[at + 1], '^(%d+)|(.*)$')
  local age = now - tonumber(seen)
  if voter == replica then
    renew = cast ~= ballot or age >= renewed_after
  elseif age >= silent_after then
    silent[#silent + 1] = voter
  else
    ballots[#ballots + 1] = voter
    ballots[#ballots + 1] = cast
  end
end
local state = redis.call('HGETALL', state_key)

if #silent > 0 then
  redis.call('HDEL', ballots_key, unpack(silent))
end
if renew then
  redis.call('HSET', ballots_key, replica, string.format('%.0f|%s', now, ballot))
end
if vitals ~= '' then
  redis.call('HSET', vitals_key, 'signs', vitals)
end
if is_due then
  redis.call('HSET', vitals_key, 'asked_at', string.format('%.0f', now))
end
return { string.format('%.0f', now), is_due and 1 or 0, vitals ~= '' and vitals or known[2] or '', state, ballots }
