-- Time is the store's own, so that no client's clock can open or close a window. Tests put another clock here.
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
