-- The outages in the order in which they were recorded.
-- KEYS[1]  the outages
-- Returns  each as it was packed
return redis.call('LRANGE', KEYS[1], 0, -1)
