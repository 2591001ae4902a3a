-- Keeps a page of a file that is being taken in, and the file for so long: in one step, so that nothing stays for ever.
-- KEYS[1]  the import
-- ARGV     field of the page, its lines, seconds
-- Returns  1
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return redis.call('EXPIRE', KEYS[1], ARGV[3])
