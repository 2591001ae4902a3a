-- Writes an extension through to the next coupons it concerns, and its own checkpoint with them, in one step. What was
-- undone before this extension was made must have been written through first.
-- Uses     clock, state, events, extension, record, whole_block, coupon, sweep, scope, marks, repack
-- KEYS[1]  the shard's state
-- ARGV     number of the extension, the most coupons to look at (a multiple of a block)
-- Returns  false for an unknown shard or extension, or one that must wait, else {done, total}
local state_key, number, most = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local state = load_state(state_key)
local progress_key = key_of(state_key, 'extension:' .. ARGV[1])
local progress = redis.call('HMGET', progress_key, 'done', 'total')
if not state or not progress[1] then
  return false
end
local extensions, done, total = state.extensions, tonumber(progress[1]), tonumber(progress[2])
local plain = extensions[number]
local waits, scopes = false, {}
for i, extension in ipairs(extensions) do
  waits = waits or (extension.undoing and extension.undone_made < number)
  if i <= number then
    local key = key_of(state_key, 'extension:' .. i)
    scopes[i] = extension.scoped and unpack_scope(redis.call('HGET', key, 'scope')) or {}
  end
end
if waits then
  return false
elseif done == total then
  return { done, total }
end

local now = now_ms()
-- An earlier extension that has not come this far is written along, and told what it changed here.
local extended, revived, refused, wakes_at = {}, {}, {}, nil

local function note(found, i, sequence, count)
  local noted = found[i] or { runs = {}, coupons = 0 }
  add_to_runs(noted.runs, sequence, count)
  noted.coupons = noted.coupons + (count or 1)
  found[i] = noted
end

-- What was undone meanwhile brings nobody back.
local function is_back(record)
  return not state.is_undoing or refold(record, state, #extensions) > now
end

-- An extension of every coupon that was undone meanwhile is written all the same: its undoing is written after it.
local function apply(record, sequence, i)
  local extension, before = extensions[i], record.stored_expires_at
  if (extension.scoped and extension.undone_made) or not concerns(state, extension, scopes[i], record, before) then
    return
  end
  local after = lift(extension, before)
  record.stored_expires_at = after
  if extension.scoped then
    mark(record, i)
  end
  if record.status == EXPIRED and after > math.max(before, now) and is_back(record) then
    if not affords(state, record) then
      return note(refused, i, sequence)
    end
    record.status = ISSUED
    move_record(state_key, state, sequence, record)
    note(revived, i, sequence)
    wakes_at = math.min(wakes_at or after, after)
  end
  if after > before and (record.status == ISSUED or record.status == RESERVED) then
    note(extended, i, sequence)
  end
end

local is_plain, lifted = not (plain.scoped or state.is_undoing), plain.until_ms and struct.pack('>I6', plain.until_ms)

-- The head of a coupon that has seen all but this extension, and whether the coupon is usable and has longer now: its
-- record need not be taken apart. Nil for a coupon that lags, or may come back.
local function lift_head(head)
  local status, applied = string.byte(head, 1, 2)
  local before = struct.unpack('>I6', head, EXPIRES_AT)
  local is_concerned = plain.include_expired or before > plain.made_at
  if not is_plain or applied % MARKED ~= number - 1 or (is_concerned and status % DRAWN == EXPIRED) then
    return nil
  end
  local seen = string.char(status, applied + 1) .. string.sub(head, 3, EXPIRES_AT - 1)
  if is_concerned and before < plain.until_ms then
    return seen .. lifted, status % DRAWN == ISSUED or status % DRAWN == RESERVED
  end
  return seen .. string.sub(head, EXPIRES_AT), false
end

local function write_any(block, place, sequence)
  local record = open_in_block(block, place, state, sequence)
  if record.applied >= number then
    return block.records[place]
  end
  for i = record.applied + 1, number do
    apply(record, sequence, i)
  end
  record.applied = number
  return pack_record(record)
end

-- Coupons that were issued together have the same head, which is lifted once for all of them.
local known_head, lifted_head, is_longer

local function lift_record(packed)
  local head = string.sub(packed, 1, HEAD_BYTES)
  if head ~= known_head then
    known_head, lifted_head, is_longer = head, lift_head(head)
  end
  return lifted_head and lifted_head .. string.sub(packed, HEAD_BYTES + 1)
end

-- Lifts the records that the parts of a block share. One for which that does not do is spread.
local function lift_parts(block, base, block_end)
  for _, part in ipairs(block.parts) do
    local lifted = base + part.place + part.count <= block_end and lift_record(part.shared)
    if lifted then
      part.shared, part.is_longer = lifted, is_longer
    else
      spread(block, part)
    end
  end
end

-- In the order of their issue, since the budget may not bring all of them back. Returns at which places records have
-- changed.
local function lift_one_by_one(block, base, block_end)
  local is_longer_at, changed = {}, {}
  for _, part in ipairs(block.parts) do
    for place = part.place, part.place + part.count - 1 do
      is_longer_at[place] = part.is_longer
    end
  end
  for sequence = done, block_end - 1 do
    local place = sequence - base
    local packed = block.records[place]
    local written = packed and lift_record(packed)
    if (written and is_longer) or (not packed and is_longer_at[place]) then
      note(extended, number, sequence)
    end
    if packed then
      written = written or write_any(block, place, sequence)
      block.records[place], changed[place] = written, written ~= packed or nil
    end
  end
  return changed
end

local last = math.min(total, done + most)
while done < last do
  local base = done - done % state.block_size
  local block_end, block, changed = math.min(last, base + state.block_size), read_block(state, done), {}
  lift_parts(block, base, block_end)
  if next(block.records) then
    changed = lift_one_by_one(block, base, block_end)
  else
    for _, part in ipairs(block.parts) do
      if part.is_longer then
        note(extended, number, base + part.place, part.count)
      end
    end
  end
  write_block(state, block, changed)
  done = block_end
end

redis.call('HSET', progress_key, 'done', integer(done))
for name, found in pairs({ changed = extended, revived = revived, refused = refused }) do
  for i, noted in pairs(found) do
    redis.call('HINCRBY', key_of(state_key, 'extension:' .. i), name, noted.coupons)
  end
end
if next(revived) then
  save_ledger(state_key, state)
  wake_sweep(state_key, wakes_at)
end
for i = 1, number do
  if revived[i] then
    record_coupon_event(state_key, 'coupon.revived', { coupons = revived[i].runs, extension = i })
  end
  if extended[i] then
    record_coupon_event(state_key, 'coupon.extended', { coupons = extended[i].runs, extension = i })
  end
end
return { done, total }
