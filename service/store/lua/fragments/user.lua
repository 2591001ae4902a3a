-- Whose a coupon is: its own record tells, or the names of its row; nothing where they are gone.
-- Uses     block

-- The names among which the coupon's stands, where they begin in a text, and how many stand before it. Whoever asks for
-- one asks for his neighbours next.
local function names_of(state, sequence)
  local key, row = row_place(state, sequence)
  local field = (state.first_names or 0) + row
  if state.names_key ~= key or state.names_field ~= field then
    state.names_key, state.names_field, state.names = key, field, redis.call('HGET', key, field) or ''
  end
  if state.first_names then
    return state.names, 1, sequence % state.row_size
  end
  local at, before = find_part(state, state.names, sequence)
  return state.names, (at or #state.names) + SHARED_BYTES, before or 0
end

local function user_of(state, record)
  if record.user ~= '' then
    return record.user
  end
  local names, at, before = names_of(state, record.sequence)
  for _ = 1, before do
    at = (string.find(names, '\0', at, true) or #names) + 1
  end
  return string.sub(names, at, (string.find(names, '\0', at, true) or 0) - 1)
end
