-- Opens the record of a long job, unless there is one: it stays until it has ended, and a while longer.
-- KEYS     the job, the index of jobs that have not ended
-- ARGV     id, kind, campaign, arguments (JSON), the most jobs that may be open
-- Returns  opened, known or too_many_jobs
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 'known'
elseif redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then
  return 'too_many_jobs'
end
local now = integer(now_ms())
redis.call('HSET', KEYS[1], 'kind', ARGV[2], 'campaign', ARGV[3], 'arguments', ARGV[4], 'status', 'pending',
  'opened_at', now, 'turn', 0, 'done', 0, 'total', 0)
redis.call('ZADD', KEYS[2], now, ARGV[1])
return 'opened'
