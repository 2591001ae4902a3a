-- The sweep (expire.lua) has passed this coupon perhaps; it must look again once the coupon is due.
local function wake_sweep(state_key, due)
  local known = tonumber(redis.call('HGET', state_key, 'survivors_due') or 0)
  if known == 0 or due < known then
    redis.call('HSET', state_key, 'survivors_due', due)
  end
end
