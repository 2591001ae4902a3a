-- Notes how far a long job is, and how it ended if it did. Of the jobs of a kind that have ended the latest are kept.
-- Uses     clock
-- KEYS     the job, the index of jobs that have not ended, the index of those of its kind that have
-- ARGV     id, turn, status, done, total, checkpoint, error, how many that have ended are kept
-- Returns  1, or 0 where another turn has begun since
if redis.call('HGET', KEYS[1], 'turn') ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'status', ARGV[3], 'done', ARGV[4], 'total', ARGV[5], 'checkpoint', ARGV[6],
  'error', ARGV[7])
if ARGV[3] == 'completed' or ARGV[3] == 'failed' then
  local now = now_ms()
  redis.call('HSET', KEYS[1], 'finished_at', now)
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('ZADD', KEYS[3], now, ARGV[1])
  local prefix = string.sub(KEYS[1], 1, -#ARGV[1] - 1)
  for _, old in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1 - tonumber(ARGV[8]))) do
    redis.call('DEL', prefix .. old)
    redis.call('ZREM', KEYS[3], old)
  end
end
return 1
