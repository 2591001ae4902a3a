-- What there is to tidy in one shard, for very little of the store's time.
-- Uses     clock, state, extension, validity, coupon
-- KEYS[1]  the shard's state
-- Returns  {now, version or 0 for an unknown shard, extensions made, 1 if the last is not written through, 1 if
--          coupons have expired or reservations lapsed, outages turned into extensions, the preview to be made or 0,
--          the extensions whose undoing is not written through}
local state_key, now = KEYS[1], now_ms()
local state = load_state(state_key)
if not state then
  return { now, 0, 0, 0, 0, 0, 0, {} }
end

local function last_is_unwritten()
  local progress = redis.call('HMGET', key_of(state_key, 'extension:' .. #state.extensions), 'done', 'total')
  return progress[1] and tonumber(progress[1]) < tonumber(progress[2])
end

-- Whether expire.lua would find anything.
local function sweep_is_due()
  local sweep = redis.call('HMGET', state_key, 'swept', 'survivors_due')
  local swept, due = tonumber(sweep[1] or 0), tonumber(sweep[2] or 0)
  if due > 0 and due <= now then
    return true
  elseif swept >= state.issued then
    return false
  end
  local record = load_record(state, swept, now)
  if not record then
    return true
  end
  local _, own_expiry = window_of(state.config.validity, record.issued_at, state.extensions,
    extensions_before(state.extensions, swept), swept)
  return own_expiry <= now
end

local function undoings()
  local found = {}
  for number, extension in ipairs(state.extensions) do
    found[#found + 1] = extension.undoing and number or nil
  end
  return found
end

local function hold_is_due()
  return redis.call('ZCOUNT', key_of(state_key, 'holds'), '-inf', now) > 0
end

local asked = redis.call('HMGET', state_key, 'outages', 'preview')
return { now, state.config.version, #state.extensions, last_is_unwritten() and 1 or 0,
  (sweep_is_due() or hold_is_due()) and 1 or 0, tonumber(asked[1] or 0), tonumber(asked[2] or 0), undoings() }
