-- A coupon's packed record, big-endian: status, extensions applied, attempts, issued, starts and expires at (ms),
-- user; the amount, if it was drawn from a pot, which DRAWN added to the status tells; the marks, which MARKED added to
-- the extensions applied tells; and, once there was a redemption, its status, at, hold until, discount, merchant, order.
-- 128 records share one hash, so that the hash stays a listpack.
local BLOCK = 128
local HEAD, TAIL = '>BBI2I6I6I6', '>BI6I6I6'
local MARKED = 128
local EXPIRES_FIRST, EXPIRES_LAST = 17, 22
local ISSUED, RESERVED, REDEEMED, EXPIRED, DEACTIVATED = 1, 2, 3, 4, 5
local STATUS_WORDS = { 'issued', 'reserved', 'redeemed', 'expired', 'deactivated' }
local LEDGER = { 'outstanding', 'reserved', 'redeemed', 'expired', 'deactivated' }
local HELD, COMMITTED, RELEASED, ROLLED_BACK = 1, 2, 3, 4
local REDEMPTION_WORDS = { 'reserved', 'committed', 'released', 'rolled_back' }

local function block_key(state_key, sequence)
  return key_of(state_key, 'coupons:' .. integer(math.floor(sequence / BLOCK)))
end

local function with_length(text)
  return string.char(#text) .. text
end

-- Such a text, and where the next one begins.
local function text_at(packed, at)
  local next_at = at + 1 + string.byte(packed, at)
  return string.sub(packed, at + 1, next_at - 1), next_at
end

local function is_held(status)
  return status == RESERVED or status == REDEEMED
end

local function pack_record(record)
  local amount, marks = record.amount, record.marks
  local head = struct.pack(HEAD, amount and record.status + DRAWN or record.status,
    marks and record.applied + MARKED or record.applied, record.attempts, record.issued_at, record.starts_at,
    record.stored_expires_at) .. with_length(record.user)
  if amount then
    head = head .. struct.pack('>I6', amount)
  end
  if marks then
    head = head .. with_length(marks)
  end
  local redemption = record.redemption
  if not redemption then
    return head
  end
  return head .. struct.pack(TAIL, redemption.status, redemption.at, redemption.hold_until, redemption.discount)
    .. with_length(redemption.merchant) .. with_length(redemption.order)
end

local function unpack_record(packed)
  local record = {}
  local at
  record.status, record.applied, record.attempts, record.issued_at, record.starts_at, record.expires_at, at
    = struct.unpack(HEAD, packed)
  record.user, at = text_at(packed, at)
  if record.status > DRAWN then
    record.status = record.status - DRAWN
    record.amount, at = struct.unpack('>I6', packed, at)
  end
  if record.applied >= MARKED then
    record.applied = record.applied - MARKED
    record.marks, at = text_at(packed, at)
  end
  if at <= #packed then
    local redemption = {}
    redemption.status, redemption.at, redemption.hold_until, redemption.discount, at = struct.unpack(TAIL, packed, at)
    redemption.merchant, at = text_at(packed, at)
    redemption.order = text_at(packed, at)
    record.redemption, record.stored_redemption = redemption, redemption
  end
  record.stored_status, record.stored_expires_at = record.status, record.expires_at
  return record
end

local function mark(record, byte)
  if not is_marked(record.marks, byte) then
    record.marks = (record.marks or '') .. string.char(byte)
  end
end

-- Until an undoing is written through, a coupon remembers that it was used meanwhile, since its next use hides this one.
local function keep_what_was_used(record, extensions)
  local redemption = record.redemption
  for i = extensions_before(extensions, record.sequence) + 1, redemption and #extensions or 0 do
    local extension = extensions[i]
    if extension.undoing and extension.made_at <= redemption.at and redemption.at < extension.undone_at
      and (not extension.scoped or is_marked(record.marks, i)) then
      mark(record, KEPT + i)
    end
  end
end

-- The expiry after the first `last` extensions, from the coupon's first answer on: by all that holds now or, where `by`
-- is given, by what held when that extension was made.
local function refold(record, state, last, by)
  local extensions, marks = state.extensions, record.marks
  local made = extensions_before(extensions, record.sequence)
  local _, first = window_of(state.config.validity, record.issued_at, extensions, made, record.sequence)
  return fold(first, extensions, made + 1, last, function(i, asked_by)
    local undone_made = extensions[i].undone_made
    asked_by = asked_by or by
    if is_marked(marks, KEPT + i) then
      return true
    elseif undone_made and not (asked_by and undone_made >= asked_by) then
      return false
    end
    return not extensions[i].scoped or is_marked(marks, i)
  end)
end

-- What a coupon keeps committed of the budget while it is in that status.
local function committed_in(state, record, status)
  return status <= REDEEMED and worth(state, record) or 0
end

-- Whether the budget covers this coupon too, besides those that this call has used and not written yet.
local function affords(state, record)
  local budget = state.config.budget
  return not budget or state.committed + (state.set_aside or 0) + worth(state, record) <= budget
end

-- Brings a record up to date in memory: a reservation past its time has lapsed, extensions lift the expiry, a coupon
-- past it is expired, and one that was expired and has it before it again is back if the budget covers it. Only a
-- decision that stands writes it back; the expiry is left to apply_extension.lua, so that it can count what each
-- extension changed.
local function bring_up_to_date(record, state, now)
  record.expires_at = is_undoing(state) and refold(record, state, #state.extensions)
    or extend_expiry(record.stored_expires_at, state.extensions, record.applied + 1, #state.extensions)
  if record.status == RESERVED and record.redemption.hold_until <= now then
    record.status = ISSUED
    record.redemption.status = RELEASED
  end
  if record.status == ISSUED and record.expires_at <= now then
    record.status = EXPIRED
  elseif record.status == EXPIRED and record.expires_at > now and affords(state, record) then
    record.status = ISSUED
  end
end

-- The record of that sequence as it was packed.
local function open_record(packed, state, sequence)
  local record = unpack_record(packed)
  record.sequence = sequence
  if is_undoing(state) then
    keep_what_was_used(record, state.extensions)
  end
  return record
end

-- The record of that sequence as it stands now, or nil.
local function load_record(state_key, state, sequence, now)
  local packed = redis.call('HGET', block_key(state_key, sequence), integer(sequence % BLOCK))
  if not packed then
    return nil
  end
  local record = open_record(packed, state, sequence)
  bring_up_to_date(record, state, now)
  return record
end

-- Moves a coupon in the ledger from the status it was stored under to the one it has; and in a recount that is under
-- way and has passed it, so that what was recounted so far stays true while coupons change behind it.
local function move_in_ledger(state, sequence, record)
  local from, to = record.stored_status, record.status
  local money = committed_in(state, record, to) - committed_in(state, record, from)
  state[LEDGER[from]] = state[LEDGER[from]] - 1
  state[LEDGER[to]] = state[LEDGER[to]] + 1
  state.committed = state.committed + money
  local recount = state.recount
  if recount and sequence < recount.next then
    recount.counts[from] = recount.counts[from] - 1
    recount.counts[to] = recount.counts[to] + 1
    recount.money = recount.money + money
    state.recount_moved = true
  end
end

-- The same in the ledger of drawn money too, where the coupon has an amount of its own. A record that is written with
-- another status has gone through here.
local function move_coupon(state_key, state, sequence, record)
  move_in_ledger(state, sequence, record)
  if record.amount then
    move_drawn(state_key, LEDGER[record.stored_status], LEDGER[record.status], record.amount)
  end
  record.stored_status = record.status
end

-- Writes the record back and moves it in the ledger from the status it was stored under to the one it has.
local function save_record(state_key, state, sequence, record)
  redis.call('HSET', block_key(state_key, sequence), integer(sequence % BLOCK), pack_record(record))
  local from, to = record.stored_status, record.status
  if from ~= to then
    move_coupon(state_key, state, sequence, record)
  end
  if state.config.holder_limits then
    move_holder(state_key, state.config.holder_limits, sequence, is_held(from) and record.stored_redemption or nil,
      is_held(to) and record.redemption or nil)
    record.stored_redemption = record.redemption
  end
  if from == RESERVED or to == RESERVED then
    local holds = key_of(state_key, 'holds')
    if to == RESERVED then
      redis.call('ZADD', holds, integer(record.redemption.hold_until), integer(sequence))
    else
      redis.call('ZREM', holds, integer(sequence))
    end
  end
end

local function describe_redemption(word, record)
  local redemption = record.redemption
  return { word, record.attempts, REDEMPTION_WORDS[redemption.status], redemption.at, redemption.discount,
    redemption.hold_until, redemption.merchant, redemption.order }
end

local function describe_coupon(word, record)
  return { word, STATUS_WORDS[record.status], record.user, record.issued_at, record.starts_at, record.expires_at,
    record.amount }
end
