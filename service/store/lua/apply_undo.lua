-- Writes the undoing of an extension through to the next coupons, and its own checkpoint with them, in one step. The
-- extensions made before it must have been written through first.
-- Uses     state, events, record, whole_block, coupon, sweep, repack
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

local last, shortened, count, wakes_at = math.min(total, done + most), {}, 0, nil
while done < last do
  local base = done - done % state.block_size
  local block_end, block, changed = math.min(last, base + state.block_size), read_records(state, done), {}
  for sequence = done, block_end - 1 do
    local place = sequence - base
    if block.records[place] then
      local record = open_in_block(block, place, state, sequence)
      local before = record.stored_expires_at
      -- What is undone later has still been found by the extensions that are written before its undoing is.
      record.stored_expires_at = refold(record, state, record.applied, record.applied + 1)
      block.records[place], changed[place] = pack_record(record), true
      if record.stored_expires_at < before and (record.status == ISSUED or record.status == RESERVED) then
        add_to_runs(shortened, sequence)
        count = count + 1
        wakes_at = math.min(wakes_at or record.stored_expires_at, record.stored_expires_at)
      end
    end
  end
  write_block(state, block, changed)
  done = block_end
end

redis.call('HSET', progress_key, 'undo_done', integer(done))
redis.call('HINCRBY', progress_key, 'shortened', count)
if done == total then
  extension.undoing = nil
  redis.call('HSET', state_key, 'extensions', cmsgpack.pack(state.extensions))
end
if wakes_at then
  wake_sweep(state_key, wakes_at)
end
record_coupon_event(state_key, 'coupon.extension_undone', { coupons = shortened, extension = number })
return { done, total }
