-- How the records of a block lie in its hash. A record of its own stands under its coupon's place in the block. Coupons
-- that were issued together differ in nothing but their users, so they share a record: every row of neighbours has a
-- field, behind those of all places, whose parts are the batches that it came from: the first coupon's place in the
-- row, how many they are, how long their users are together; the record, whose user is empty; and the users, a zero
-- byte behind each, which no id has. Whoever is changed alone gets a record of his own, which counts before the part;
-- his user stays where he is.
-- Shards of earlier versions have larger blocks and no rows.
-- Uses     record
local ROW = 8
local PART, PART_BYTES = '>BBI2', 4
local SHARED_BYTES = HEAD_BYTES + 1

-- %d cuts the fraction off.
local function block_key(state, sequence)
  return string.format(state.block_format, sequence / state.block_size)
end

local function row_field(state, place)
  return state.block_size + math.floor(place / ROW)
end

local function pack_part(place, count, shared, users)
  return struct.pack(PART, place % ROW, count, #users) .. shared .. users
end

-- Where in its row a coupon's shared record begins, how many stand before the coupon in its part, and how many from it
-- on; nil where there is none.
local function find_part(row, sequence)
  local place, at = sequence % ROW, 1
  while at < #row do
    local first, count, high, low = string.byte(row, at, at + PART_BYTES - 1)
    if first <= place and place < first + count then
      return at + PART_BYTES, place - first, first + count - place
    end
    at = at + PART_BYTES + SHARED_BYTES + 256 * high + low
  end
  return nil
end
