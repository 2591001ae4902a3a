-- Whose a coupon is: its own record tells, or the names of its row.
-- Uses     block

-- The names in which that of the coupon stands, where they begin there, and how many stand before it. Whoever asks for
-- one asks for his neighbours next.
local function names_of(state, sequence)
  local key, row = row_place(state, sequence)
  local field = state.first_names and state.first_names + row or row
  if state.names_key ~= key or state.names_field ~= field then
    state.names_key, state.names_field, state.names = key, field, redis.call('HGET', key, field)
  end
  if state.first_names then
    return state.names, 1, sequence % state.row_size
  end
  local at, before = find_part(state, state.names, sequence)
  return state.names, at + SHARED_BYTES, before
end

local function user_of(state, record)
  if record.user ~= '' then
    return record.user
  end
  local names, at, before = names_of(state, record.sequence)
  for _ = 1, before do
    at = string.find(names, '\0', at, true) + 1
  end
  return string.sub(names, at, string.find(names, '\0', at, true) - 1)
end
