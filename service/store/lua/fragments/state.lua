-- One shard's state: its configuration, its ledger of coupons and money, its bucket and its extensions.
-- Every key of a decision shares the state key's prefix and so its slot.
local COUNTERS = { 'issued', 'outstanding', 'reserved', 'redeemed', 'expired', 'deactivated', 'committed' }

-- How a shard's data lie in the store: coupons in rows since layout 1 (see the fragment block), the ledger in one field
-- since layout 2, rows, records and users apart since layout 3. Shards of earlier versions keep theirs. The
-- configuration begins with as many bytes that MessagePack never uses: versions that do not know a layout fail at it,
-- before they have written anything.
local LAYOUT, LAYOUT_MARK = 3, '\193'
-- Coupons that start in waves or draw their amounts share nothing. Where each has a record of its own, small packed
-- hashes take half the memory.
local LAYOUT_WITHOUT_ROWS = 2
-- The level of the campaign's bucket and when it was told, both 0 until it is charged, and the counters in their order,
-- with signs, so that one that has drifted below 0 is seen as such. A field for each costs the store more: to find, to
-- read, to write and to log.
local LEDGER_FORM = '>I8I6i5i5i5i5i5i5i8'
-- How many coupons share a hash, and a row; how many are looked at together: a block; what the hashes of rows are
-- called; where rows begin there, and where names do, if they stand apart. A small hash is packed, and what a field
-- costs to find grows with it; a large one is not, but a batch finds all of its coupons there by one command. The
-- records of two million are some 200 MB when all are used, which a Cluster still moves.
local function form_of(layout)
  if layout > 2 then
    return 2097152, 32, 32, 'rows:%d', 0, 65536
  elseif layout > 0 then
    return 32, 8, 32, 'coupons:%d', 32
  end
  return 128, 128, 128, 'coupons:%d', 128
end

local function integer(number)
  return string.format('%.0f', number)
end

local function key_of(state_key, suffix)
  return string.sub(state_key, 1, -6) .. suffix
end

-- A ledger that is not there is an error, before anything is written.
local function read_ledger(state_key, layout, packed)
  if layout > 1 then
    return struct.unpack(LEDGER_FORM, packed)
  end
  local bucket, counters = redis.call('HMGET', state_key, 'tokens', 'tokens_at'),
    redis.call('HMGET', state_key, unpack(COUNTERS))
  for i, counter in ipairs(counters) do
    counters[i] = tonumber(counter) or error('a counter is lost')
  end
  return tonumber(bucket[1] or 0), tonumber(bucket[2] or 0), unpack(counters)
end

-- Returns nil where the shard was never configured.
local function load_state(state_key)
  local values = redis.call('HMGET', state_key, 'config', 'ledger', 'extensions', 'recount')
  local config, ledger = values[1], values[2]
  if not config then
    return nil
  end
  local layout = math.min(LAYOUT, string.find(config, '[^' .. LAYOUT_MARK .. ']') - 1)
  local hash_size, row_size, block_size, rows, first_row, first_names = form_of(layout)
  local tokens, tokens_at, issued, outstanding, reserved, redeemed, expired, deactivated, committed = read_ledger(
    state_key, layout, ledger)
  config = cmsgpack.unpack(string.sub(config, layout + 1))
  local state = {
    layout = layout,
    config = config,
    tokens = tokens_at > 0 and tokens or nil,
    tokens_at = tokens_at,
    issued = issued,
    outstanding = outstanding,
    reserved = reserved,
    redeemed = redeemed,
    expired = expired,
    deactivated = deactivated,
    committed = committed,
    extensions = values[3] and cmsgpack.unpack(values[3]) or {},
    recount = values[4] and cmsgpack.unpack(values[4]),
    records_format = key_of(state_key, 'coupons:%d'),
    rows_format = key_of(state_key, rows),
    in_rows = layout > 0 and not (config.pot or config.validity.waves),
    hash_size = hash_size,
    row_size = row_size,
    block_size = block_size,
    first_row = first_row,
    first_names = first_names,
  }
  for _, extension in ipairs(state.extensions) do
    state.is_undoing = state.is_undoing or extension.undoing
  end
  return state
end

local function save_ledger(state_key, state)
  local tokens, fields = state.tokens or 0, nil
  if state.layout > 1 then
    fields = { 'ledger', struct.pack(LEDGER_FORM, tokens, state.tokens_at, state.issued, state.outstanding,
      state.reserved, state.redeemed, state.expired, state.deactivated, state.committed) }
  else
    fields = { 'tokens', tokens, 'tokens_at', state.tokens_at }
    for _, name in ipairs(COUNTERS) do
      fields[#fields + 1], fields[#fields + 2] = name, state[name]
    end
  end
  if state.recount_moved then
    fields[#fields + 1], fields[#fields + 2] = 'recount', cmsgpack.pack(state.recount)
  end
  redis.call('HSET', state_key, unpack(fields))
end

local function record_event(state_key, type, data)
  redis.call('XADD', key_of(state_key, 'events'), '*', 'type', type, 'data', cmsgpack.pack(data))
end
