-- Takes a turn at a long job. The latest turn is the only one whose word counts: a worker that was thought dead and
-- wakes up learns it at its next word. A job that failed is taken up again; one that is completed is not.
-- KEYS     the job, the index of jobs that have not ended, the index of those of its kind that have
-- ARGV     id
-- Returns  the turn, or 0 where there is nothing to do
local status, opened_at = unpack(redis.call('HMGET', KEYS[1], 'status', 'opened_at'))
if not status or status == 'completed' then
  return 0
end
redis.call('HSET', KEYS[1], 'status', 'running', 'finished_at', 0)
redis.call('HSETNX', KEYS[1], 'started_at', integer(now_ms()))
redis.call('ZADD', KEYS[2], opened_at, ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return redis.call('HINCRBY', KEYS[1], 'turn', 1)
