-- Writes the records of coupons that were issued together: `users` in the order of their sequences, from `first` on.
-- Uses     block

-- Coupons that differ in nothing but their users share their record.
local function save_rows(state, first, users, shared)
  local count, from, fields = #users, 1, {}
  while from <= count do
    local sequence = first + from - 1
    local place, key = sequence % state.block_size, block_key(state, sequence)
    local to = math.min(count, from + ROW - 1 - place % ROW)
    local part = pack_part(place, to - from + 1, shared, table.concat(users, '\0', from, to) .. '\0')
    local field = row_field(state, place)
    if place % ROW > 0 then
      part = (redis.call('HGET', key, field) or '') .. part
    end
    fields[#fields + 1], fields[#fields + 2] = field, part
    if to == count or (first + to) % state.block_size == 0 then
      redis.call('HSET', key, unpack(fields))
      fields = {}
    end
    from = to + 1
  end
end

-- Each in a record of its own: `pack_head(i)` packs all that it says before its user, and `amounts` are what they have
-- drawn, if they have.
local function save_records(state, first, users, amounts, pack_head)
  local fields, width = {}, 0
  for i, user in ipairs(users) do
    local sequence = first + i - 1
    local record = pack_head(i) .. string.char(#user) .. user
    fields[width + 1] = sequence % state.block_size
    fields[width + 2] = amounts and record .. struct.pack('>I6', amounts[i]) or record
    width = width + 2
    if i == #users or (sequence + 1) % state.block_size == 0 then
      redis.call('HSET', block_key(state, sequence), unpack(fields, 1, width))
      width = 0
    end
  end
end
