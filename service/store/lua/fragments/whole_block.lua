-- A block read as a whole, for scripts that look at all of its coupons.
-- Uses     block

-- Adds a row's parts to `parts`. One that is cut short has no coupons.
local function unpack_row(parts, row, first_place)
  local at = 1
  while at + PART_BYTES + SHARED_BYTES - 1 <= #row do
    local first, count, length, shared_at = struct.unpack(PART, row, at)
    local users_at = shared_at + SHARED_BYTES
    at = users_at + length
    if at > #row + 1 then
      break
    end
    local stored = string.sub(row, shared_at, users_at - 1)
    parts[#parts + 1] = { place = first_place + first, count = count, stored = stored, shared = stored,
      users = string.sub(row, users_at, at - 1) }
  end
end

-- Gives each coupon of a part that has no record of its own the shared one, so that it can be changed alone.
local function spread(block, part)
  local records = block.records
  part.is_spread = true
  for place = part.place, part.place + part.count - 1 do
    records[place] = records[place] or part.shared
  end
end

-- That sequence's block: its parts in order, and the records of their own by their places, as they are packed. One look
-- at all of a packed hash costs less than one for each of its fields.
local function read_block(state, sequence)
  local size, base = state.block_size, sequence - sequence % state.block_size
  local records_key, first = record_place(state, base)
  local rows_key, first_row = row_place(state, base)
  local block = { records_key = records_key, first = first, rows_key = rows_key, first_row = first_row, parts = {},
    is_own = {}, records = {} }
  local rows = {}

  local function add(place, record)
    block.records[place], block.is_own[place] = record, true
  end

  if state.hash_size == size then
    local fields = redis.call('HGETALL', records_key)
    for at = 1, #fields, 2 do
      local field = tonumber(fields[at])
      if field < size then
        add(field, fields[at + 1])
      else
        rows[field] = fields[at + 1]
      end
    end
  else
    local fields = {}
    for place = 0, size - 1 do
      fields[place + 1] = first + place
    end
    for i, record in ipairs(redis.call('HMGET', records_key, unpack(fields))) do
      if record then
        add(i - 1, record)
      end
    end
    rows[first_row] = redis.call('HGET', rows_key, first_row)
  end
  for number = 0, size / state.row_size - 1 do
    unpack_row(block.parts, rows[first_row + number] or '', number * state.row_size)
  end
  return block
end

-- The same with the record of each coupon among `records`.
local function read_records(state, sequence)
  local block = read_block(state, sequence)
  for _, part in ipairs(block.parts) do
    spread(block, part)
  end
  return block
end

-- Writes back what has changed since the block was read: the shared records of its parts, and `records` at the places
-- that `changed` tells. Those of a part that was spread and still agree, or agree again, go on sharing a record.
local function write_block(state, block, changed)
  local records, is_own, fields = block.records, block.is_own, {}

  local function add(place)
    fields[#fields + 1] = block.first + place
    fields[#fields + 1] = records[place]
  end

  local function share_again(part)
    if not part.is_spread then
      return part.shared
    end
    local shared
    for place = part.place, part.place + part.count - 1 do
      local packed = not is_own[place] and records[place]
      if packed and #packed == SHARED_BYTES and (not shared or packed == shared) then
        shared = packed
      elseif packed then
        add(place)
      end
    end
    return shared or part.shared
  end

  local rows, is_changed = {}, {}
  for _, part in ipairs(block.parts) do
    local number, shared = math.floor(part.place / state.row_size), share_again(part)
    rows[number] = (rows[number] or '') .. pack_part(part.place % state.row_size, part.count, shared, part.users)
    is_changed[number] = is_changed[number] or shared ~= part.stored
  end
  for number, row in pairs(rows) do
    if is_changed[number] then
      redis.call('HSET', block.rows_key, block.first_row + number, row)
    end
  end
  for place in pairs(changed) do
    if is_own[place] then
      add(place)
    end
  end
  if #fields > 0 then
    redis.call('HSET', block.records_key, unpack(fields))
  end
end
