-- Takes a turn at a long job that has not ended. The latest turn is the only one whose word counts: a worker that was
-- thought dead and wakes up learns it at its next word.
-- Uses     clock
-- KEYS     the job
-- Returns  the turn, or 0 where there is nothing to do
local status = redis.call('HGET', KEYS[1], 'status')
if status ~= 'pending' and status ~= 'running' then
  return 0
end
redis.call('HSET', KEYS[1], 'status', 'running')
redis.call('HSETNX', KEYS[1], 'started_at', now_ms())
return redis.call('HINCRBY', KEYS[1], 'turn', 1)
