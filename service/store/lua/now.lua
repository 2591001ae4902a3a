-- What time it is for the store.
-- Returns  milliseconds since the epoch
return now_ms()
