-- How the records of coupons lie in the store. A record of its own stands in a hash `coupons:<n>`, under its coupon's
-- place there. Coupons that were issued together differ in nothing but their users, so they share a record: neighbours
-- are a row, a field of a hash `rows:<n>`, whose parts are the batches that it came from: the first coupon's place in
-- the row, how many they are, how many bytes of names follow, none; and the record, whose user is empty. A row's users
-- are a field of that hash behind all rows, in order, a zero byte behind each, which no id has: whoever redeems or
-- repeats asks for none. Whoever is changed alone gets a record of his own, which counts before the part; his user
-- stays where he is. The hashes are so large that the rows of a batch are read by one command, its records by another,
-- and those of first uses written by a third, however far apart its coupons lie.
-- Shards of earlier layouts (state.lua) have small hashes, in which rows, if there are any, stand behind the records,
-- and each part's users in it.
-- Uses     record
local PART, PART_BYTES = '>BBI2', 4
local SHARED_BYTES = HEAD_BYTES + 1
-- So many values are passed to one command: Lua takes no more than 8,000.
local MOST_VALUES = 4000

-- %d cuts the fraction off.
local function record_place(state, sequence)
  return string.format(state.records_format, sequence / state.hash_size), sequence % state.hash_size
end

local function row_place(state, sequence)
  return string.format(state.rows_format, sequence / state.hash_size),
    state.first_row + math.floor(sequence % state.hash_size / state.row_size)
end

local function pack_part(place, count, shared, users)
  return struct.pack(PART, place, count, #users) .. shared .. users
end

-- Where in its row a coupon's shared record begins, how many stand before the coupon in its part, and how many from it
-- on; nil where there is none.
local function find_part(state, row, sequence)
  local place, at = sequence % state.row_size, 1
  while at < #row do
    local first, count, high, low = string.byte(row, at, at + PART_BYTES - 1)
    if first <= place and place < first + count then
      return at + PART_BYTES, place - first, first + count - place
    end
    at = at + PART_BYTES + SHARED_BYTES + 256 * high + low
  end
  return nil
end

-- The fields of many coupons, of which `width` neighbours share one, by the first of these neighbours; false where
-- there is none. Those of one hash are read by one command.
local function read_fields(state, format, first_field, width, sequences)
  local found, hashes, hash_size = {}, {}, state.hash_size
  for i = 1, #sequences do
    local sequence = sequences[i]
    local first = sequence - sequence % width
    if found[first] == nil then
      found[first] = false
      local place = first % hash_size
      local fields = hashes[first - place]
      if fields then
        fields[#fields + 1] = first_field + place / width
      else
        hashes[first - place] = { first_field + place / width }
      end
    end
  end
  for beginning, fields in pairs(hashes) do
    local key = string.format(format, beginning / hash_size)
    for from = 1, #fields, MOST_VALUES do
      local values = redis.call('HMGET', key, unpack(fields, from, math.min(from + MOST_VALUES - 1, #fields)))
      for i = 1, #values do
        found[beginning + (fields[from + i - 1] - first_field) * width] = values[i]
      end
    end
  end
  return found
end

-- The records of their own, by their sequences.
local function read_own(state, sequences)
  return read_fields(state, state.records_format, 0, 1, sequences)
end

-- The rows, by the first sequence of each.
local function read_rows(state, sequences)
  return state.in_rows and read_fields(state, state.rows_format, state.first_row, state.row_size, sequences) or {}
end
