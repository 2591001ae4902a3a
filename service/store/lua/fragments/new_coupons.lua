-- Writes the records of coupons that were issued together: `users` in the order of their sequences, from `first` on.
-- Uses     block

-- Coupons that differ in nothing but their users share their record.
local function save_rows(state, first, users, shared)
  local count, from, fields, first_names = #users, 1, {}, state.first_names
  while from <= count do
    local sequence, last = first + from - 1, #fields
    local key, row = row_place(state, sequence)
    local place = sequence % state.row_size
    local to = math.min(count, from + state.row_size - 1 - place)
    local names = table.concat(users, '\0', from, to) .. '\0'
    local part = pack_part(place, to - from + 1, shared, first_names and '' or names)
    if place > 0 then
      -- Where names do not stand apart, the same is read twice, and the second not used.
      local begun = redis.call('HMGET', key, row, (first_names or 0) + row)
      part, names = (begun[1] or '') .. part, (begun[2] or '') .. names
    end
    fields[last + 1], fields[last + 2] = row, part
    if first_names then
      fields[last + 3], fields[last + 4] = first_names + row, names
    end
    if to == count or (first + to) % state.hash_size == 0 then
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
    fields[width + 1] = sequence % state.hash_size
    fields[width + 2] = amounts and record .. struct.pack('>I6', amounts[i]) or record
    width = width + 2
    if i == #users or (sequence + 1) % state.hash_size == 0 then
      redis.call('HSET', (record_place(state, sequence)), unpack(fields, 1, width))
      width = 0
    end
  end
end
