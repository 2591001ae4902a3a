-- Writes an extension through to the next coupons it concerns, and its own checkpoint with them, in one step.
-- KEYS[1]  the shard's state
-- ARGV     number of the extension, the most coupons to look at (a multiple of a block)
-- Returns  false for an unknown shard or extension, else {done, total, changed}
local state = load_state(KEYS[1])
local progress_key = key_of(KEYS[1], 'extension:' .. ARGV[1])
local progress = redis.call('HMGET', progress_key, 'done', 'total', 'changed')
if not state or not progress[1] then
  return false
end
local number, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local done, total, changed = tonumber(progress[1]), tonumber(progress[2]), tonumber(progress[3])
if done == total then
  return { done, total, changed }
end

-- An earlier extension that has not come this far is written along, and told what it changed here.
local extended = {}

local function write_through(record, sequence)
  for earlier = record.applied + 1, number do
    local lifted = extend_expiry(record.stored_expires_at, state.extensions, earlier, earlier)
    if lifted > record.stored_expires_at and (record.status == ISSUED or record.status == RESERVED) then
      extended[earlier] = extended[earlier] or { coupons = {}, count = 0 }
      add_to_runs(extended[earlier].coupons, sequence)
      extended[earlier].count = extended[earlier].count + 1
    end
    record.stored_expires_at = lifted
  end
  record.applied = number
end

local last = math.min(total, done + most)
while done < last do
  local key, fields, changes = block_key(KEYS[1], done), {}, {}
  local block_end = math.min(last, done - done % BLOCK + BLOCK)
  for sequence = done, block_end - 1 do
    fields[#fields + 1] = integer(sequence % BLOCK)
  end
  for i, packed in ipairs(redis.call('HMGET', key, unpack(fields))) do
    local record = unpack_record(packed)
    if record.applied < number then
      write_through(record, done + i - 1)
      changes[#changes + 1] = fields[i]
      changes[#changes + 1] = pack_record(record)
    end
  end
  if #changes > 0 then
    redis.call('HSET', key, unpack(changes))
  end
  done = block_end
end
redis.call('HSET', progress_key, 'done', integer(done))
for earlier = 1, number do
  if extended[earlier] then
    redis.call('HINCRBY', key_of(KEYS[1], 'extension:' .. earlier), 'changed', extended[earlier].count)
    record_coupon_event(KEYS[1], 'coupon.extended', { coupons = extended[earlier].coupons, extension = earlier })
  end
end
return { done, total, changed + (extended[number] and extended[number].count or 0) }
