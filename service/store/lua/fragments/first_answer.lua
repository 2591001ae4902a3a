-- What a coupon's first answer has said, for whoever asks again.
-- Uses     extension, validity, record, block

-- No batch is larger, so no more can differ.
local MOST_FIRST_ANSWERS = 4096

-- Returns a function that notes in `first_answers` what that of a coupon has said, by its sequence, and returns which
-- it is, both in the form in which issue.lua returns them; or nil for a coupon whose record is gone. It is asked for
-- those of `sequences`, one after the other.
local function open_first_answers(state, sequences, first_answers)
  -- Whoever lost his answer with others comes back with them, and his coupon lies beside theirs: what the first answers
  -- of a part have in common is noted once for those who come one after the other.
  local from, to, noted = 0, 0, 0
  local validity, extensions = state.config.validity, state.extensions
  local rows, alone = read_rows(state, sequences), nil

  -- Its times follow from the record's issue, whatever has become of the coupon since. Returns whether it has one.
  local function note(sequence)
    local row, issued_at, amount = rows[sequence - sequence % state.row_size], nil, nil
    local at, before, from_it_on = nil, 0, 1
    if row then
      at, before, from_it_on = find_part(state, row, sequence)
    end
    if at then
      issued_at = struct.unpack('>I6', row, at + ISSUED_AT - 1)
    else
      alone = alone or read_own(state, sequences)
      if not alone[sequence] then
        return false
      end
      local record = unpack_record(alone[sequence])
      issued_at, amount, before, from_it_on = record.issued_at, record.amount, 0, 1
    end
    local made = extensions[1] and extensions_before(extensions, sequence) or 0
    local starts_at, expires_at = window_of(validity, issued_at, extensions, made, sequence)
    from, to = sequence - before, sequence + from_it_on
    local last = 4 * noted
    first_answers[last + 1], first_answers[last + 2] = issued_at, starts_at
    first_answers[last + 3], first_answers[last + 4] = expires_at, amount or 0
    noted = noted + 1
    return true
  end

  return function(sequence)
    if (sequence < from or sequence >= to) and not note(sequence) then
      return nil
    end
    return -(sequence * MOST_FIRST_ANSWERS + noted)
  end
end
