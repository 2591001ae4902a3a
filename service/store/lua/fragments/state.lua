-- One shard's state: its configuration, its ledger of coupons and money, its bucket and its extensions.
-- Every key of a decision shares the state key's prefix and so its slot.
local COUNTERS = { 'issued', 'outstanding', 'reserved', 'redeemed', 'expired', 'deactivated', 'committed' }

-- The configuration of a shard whose coupons lie in rows (see the fragment block) begins with a byte that MessagePack
-- never uses: versions that know no rows fail at it, before they have written anything.
local ROWS = '\193'
-- How many records share one hash, with rows and without; what a record costs to find grows with it.
local BLOCK_SIZE, FIRST_BLOCK_SIZE = 32, 128

local function integer(number)
  return string.format('%.0f', number)
end

local function key_of(state_key, suffix)
  return string.sub(state_key, 1, -6) .. suffix
end

-- Returns nil where the shard was never configured.
local function load_state(state_key)
  local values = redis.call('HMGET', state_key, 'config', 'tokens', 'tokens_at', 'extensions', 'recount',
    unpack(COUNTERS))
  if not values[1] then
    return nil
  end
  local in_rows = string.sub(values[1], 1, 1) == ROWS
  local state = {
    config = cmsgpack.unpack(in_rows and string.sub(values[1], 2) or values[1]),
    tokens = tonumber(values[2]),
    tokens_at = tonumber(values[3]),
    extensions = values[4] and cmsgpack.unpack(values[4]) or {},
    recount = values[5] and cmsgpack.unpack(values[5]),
    block_format = key_of(state_key, 'coupons:%d'),
    in_rows = in_rows,
    block_size = in_rows and BLOCK_SIZE or FIRST_BLOCK_SIZE,
    stored = values,
  }
  for _, extension in ipairs(state.extensions) do
    state.is_undoing = state.is_undoing or extension.undoing
  end
  for i, name in ipairs(COUNTERS) do
    values[5 + i] = tonumber(values[5 + i])
    state[name] = values[5 + i]
  end
  return state
end

-- Writes the counters that have moved, and the fields that are given besides.
local function save_counters(state_key, state, ...)
  local fields = { ... }
  for i, name in ipairs(COUNTERS) do
    if state[name] ~= state.stored[5 + i] then
      fields[#fields + 1] = name
      fields[#fields + 1] = state[name]
    end
  end
  if state.recount_moved then
    fields[#fields + 1] = 'recount'
    fields[#fields + 1] = cmsgpack.pack(state.recount)
  end
  if #fields > 0 then
    redis.call('HSET', state_key, unpack(fields))
  end
end

local function record_event(state_key, type, data)
  redis.call('XADD', key_of(state_key, 'events'), '*', 'type', type, 'data', cmsgpack.pack(data))
end
