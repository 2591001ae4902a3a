-- Writes the undoing of an extension through to the next coupons, and its own checkpoint with them, in one step. The
-- extensions made before it must have been written through first.
-- Uses     state, events, record, coupon, sweep, scope
-- KEYS[1]  the shard's state
-- ARGV     number of the extension, the most coupons to look at (a multiple of a block)
-- Returns  false for an unknown shard, an extension that is not undone, or one that must wait, else {done, total}
local state_key, number, most = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local state = load_state(state_key)
local progress_key = key_of(state_key, 'extension:' .. ARGV[1])
local progress = redis.call('HMGET', progress_key, 'undo_done', 'undo_total')
if not state or not progress[1] then
  return false
end
local extension, done, total = state.extensions[number], tonumber(progress[1]), tonumber(progress[2])
for i = 1, extension.undone_made do
  local written = redis.call('HMGET', key_of(state_key, 'extension:' .. i), 'done', 'total')
  if tonumber(written[1]) < tonumber(written[2]) then
    return false
  end
end
if not extension.undoing then
  return { total, total }
end

local last, shortened, wakes_at = math.min(total, done + most), {}, nil
while done < last do
  local base = done - done % BLOCK
  local block_end, changes, held = math.min(last, base + BLOCK), {}, read_block(state_key, done)
  for at = 1, #held, 2 do
    local sequence = base + held[at]
    local record = sequence < block_end and open_record(held[at + 1], state, sequence)
    if record then
      local before = record.stored_expires_at
      -- What is undone later has still been found by the extensions that are written before its undoing is.
      record.stored_expires_at = refold(record, state, record.applied, record.applied + 1)
      changes[#changes + 1] = held[at]
      changes[#changes + 1] = pack_record(record)
      if record.stored_expires_at < before and (record.status == ISSUED or record.status == RESERVED) then
        shortened[#shortened + 1] = sequence
        wakes_at = math.min(wakes_at or record.stored_expires_at, record.stored_expires_at)
      end
    end
  end
  if #changes > 0 then
    redis.call('HSET', block_key(state_key, done), unpack(changes))
  end
  done = block_end
end

redis.call('HSET', progress_key, 'undo_done', integer(done))
redis.call('HINCRBY', progress_key, 'shortened', #shortened)
if done == total then
  extension.undoing = nil
  redis.call('HSET', state_key, 'extensions', cmsgpack.pack(state.extensions))
end
if wakes_at then
  wake_sweep(state_key, wakes_at)
end
record_coupon_event(state_key, 'coupon.extension_undone', { coupons = runs_of(shortened), extension = number })
return { done, total }
