-- What a coupon's first answer has said, for whoever asks again.
-- Uses     extension, validity, record, block
local TIMES_AND_AMOUNT, FIRST_ANSWER = '>I8I8I8I8', '>I8c32'

-- Returns a function that packs a coupon's first answer by its sequence, in the form in which issue.lua returns it.
local function open_first_answers(state)
  -- Whoever lost his answer with others comes back with them, and his coupon lies beside theirs: of every row the part
  -- that was asked for last, from one sequence to the next, and what its coupons' first answers have in common.
  local froms, tos, answers = {}, {}, {}

  -- Its times follow from the record's issue, whatever has become of the coupon since.
  local function times_and_amount(sequence, issued_at, amount)
    local starts_at, expires_at = window_of(state.config.validity, issued_at, state.extensions,
      extensions_before(state.extensions, sequence), sequence)
    return struct.pack(TIMES_AND_AMOUNT, issued_at, starts_at, expires_at, amount or 0)
  end

  local function read(sequence, number)
    local key, place = block_key(state, sequence), sequence % state.block_size
    local row = state.in_rows and redis.call('HGET', key, row_field(state, place))
    local at, before, from_it_on = find_part(row or '', sequence)
    if at then
      froms[number], tos[number] = sequence - before, sequence + from_it_on
      answers[number] = times_and_amount(sequence, struct.unpack('>I6', row, at + ISSUED_AT - 1), nil)
      return answers[number]
    end
    local record = unpack_record(redis.call('HGET', key, place))
    return times_and_amount(sequence, record.issued_at, record.amount)
  end

  return function(sequence)
    local number = math.floor(sequence / ROW)
    local from = froms[number]
    local common = from and from <= sequence and sequence < tos[number] and answers[number] or read(sequence, number)
    return struct.pack(FIRST_ANSWER, sequence, common)
  end
end
