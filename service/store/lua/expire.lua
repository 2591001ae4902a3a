-- Marks coupons whose validity is over and returns their money, a bounded number a call. The sequence is the index:
-- coupons are issued in its order, so the sweep stops at the first whose own rule still holds, and remembers when
-- the coupons that extensions kept alive behind it are due. Whatever ends a reservation sees to its coupon itself.
-- Uses     clock, state, events, extension, validity, record, whole_block, coupon, repack
-- KEYS[1]  the shard's state
-- ARGV     the most coupons to look at
-- Returns  false for an unknown shard, else more or idle
local state_key, most = KEYS[1], tonumber(ARGV[1])
local state = load_state(state_key)
if not state then
  return false
end
local now = now_ms()
local sweep = redis.call('HMGET', state_key, 'swept', 'survivors_due')
local stored_swept, stored_due = tonumber(sweep[1] or 0), tonumber(sweep[2] or 0)
local swept, due = stored_swept, stored_due
if due > 0 and due <= now then
  swept, due = 0, 0
end
local last, expired = math.min(state.issued, swept + most), {}

local function is_past_its_rule(record)
  local _, own_expiry = window_of(state.config.validity, record.issued_at, state.extensions,
    extensions_before(state.extensions, record.sequence), record.sequence)
  return own_expiry <= now
end

-- The record as it must be written, or nil where it stays as it is.
local function sweep(record)
  bring_up_to_date(record, state, now)
  if record.status == EXPIRED and record.stored_status ~= EXPIRED then
    move_record(state_key, state, record.sequence, record)
    add_to_runs(expired, record.sequence)
    return pack_record(record)
  elseif record.status == ISSUED then
    due = due == 0 and record.expires_at or math.min(due, record.expires_at)
  end
  return nil
end

local is_behind_the_last = false
while swept < last and not is_behind_the_last do
  local base = swept - swept % state.block_size
  local block, changed, block_end = read_records(state, swept), {}, math.min(last, base + state.block_size)
  while swept < block_end and not is_behind_the_last do
    local place = swept - base
    -- A record that is gone is named by the recount, and holds up nobody behind it.
    local record = block.records[place] and open_in_block(block, place, state, swept)
    if not record or is_past_its_rule(record) then
      local written = record and sweep(record)
      block.records[place], changed[place] = written or block.records[place], written and true or nil
      swept = swept + 1
    else
      is_behind_the_last = true
    end
  end
  write_block(state, block, changed)
end
if #expired > 0 then
  save_ledger(state_key, state)
  record_coupon_event(state_key, 'coupon.expired', { coupons = expired })
end
if swept ~= stored_swept or due ~= stored_due then
  redis.call('HSET', state_key, 'swept', swept, 'survivors_due', due)
end
return swept == last and swept < state.issued and 'more' or 'idle'
