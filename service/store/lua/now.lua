-- What time it is for the store.
-- Uses     clock
-- Returns  milliseconds since the epoch
return now_ms()
