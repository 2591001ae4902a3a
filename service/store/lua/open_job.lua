-- Opens the record of a long job, unless it is there; one that has failed is taken up again where it stands.
-- Uses     clock
-- KEYS     the job, the index of jobs that have not ended, the index of those of its kind that have
-- ARGV     id, kind, campaign, arguments (JSON), the most jobs that may be open
-- Returns  opened, known or too_many_jobs
local status = redis.call('HGET', KEYS[1], 'status')
if status and status ~= 'failed' then
  return 'known'
elseif redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then
  return 'too_many_jobs'
end
local now = now_ms()
if status then
  redis.call('HSET', KEYS[1], 'status', 'pending', 'finished_at', 0)
  redis.call('ZREM', KEYS[3], ARGV[1])
else
  redis.call('HSET', KEYS[1], 'kind', ARGV[2], 'campaign', ARGV[3], 'arguments', ARGV[4], 'status', 'pending',
    'opened_at', now, 'turn', 0, 'done', 0, 'total', 0)
end
redis.call('ZADD', KEYS[2], now, ARGV[1])
return 'opened'
