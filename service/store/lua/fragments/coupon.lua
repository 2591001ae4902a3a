-- A coupon as it stands: its record brought up to date in memory, written back, and moved in the ledger.
-- Uses     state, extension, validity, benefit, holders, record, names, block, marks, repack, user
-- A coupon remembers that it was used under an extension which its undoing must spare. `may_forget(extension)` tells
-- for which extensions that would be lost otherwise.
local function keep_what_was_used(record, extensions, may_forget)
  local redemption = record.redemption
  for i = extensions_before(extensions, record.sequence) + 1, redemption and #extensions or 0 do
    local extension = extensions[i]
    if may_forget(extension) and extension.made_at <= redemption.at
      and (not extension.undone_at or redemption.at < extension.undone_at)
      and (not extension.scoped or is_marked(record.marks, i)) then
      mark(record, KEPT + i)
    end
  end
end

-- What is being undone has not looked at this coupon yet.
local function keep_from_undoing(record, extensions)
  keep_what_was_used(record, extensions, function(extension)
    return extension.undoing
  end)
end

-- Its next use hides this one, whenever the extensions that hold now will be undone.
local function keep_before_next_use(record, extensions)
  keep_what_was_used(record, extensions, function(extension)
    return not extension.undone_made
  end)
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

-- The expiry after extensions `from` to `to` of those that hold for every coupon and were not undone: each lifts what
-- was still valid when it was made.
local function extend_expiry(expires_at, extensions, from, to)
  for i = from, to do
    local extension = extensions[i]
    if not extension.scoped and not extension.undone_made
      and (extension.include_expired or expires_at > extension.made_at) then
      expires_at = lift(extension, expires_at)
    end
  end
  return expires_at
end

-- Brings a record up to date in memory: a reservation past its time has lapsed, extensions lift the expiry, a coupon
-- past it is expired, and one that was expired and has it before it again is back if the budget covers it. Only a
-- decision that stands writes it back; the expiry is left to apply_extension.lua, so that it can count what each
-- extension changed.
local function bring_up_to_date(record, state, now)
  local made = #state.extensions
  if state.is_undoing then
    record.expires_at = refold(record, state, made)
  elseif record.applied < made then
    record.expires_at = extend_expiry(record.stored_expires_at, state.extensions, record.applied + 1, made)
  end
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

-- A block's record at that place.
local function open_in_block(block, place, state, sequence)
  local record = unpack_record(block.records[place], sequence)
  if state.is_undoing then
    keep_from_undoing(record, state.extensions)
  end
  return record
end

-- A coupon as it stands now, from its own record and from its row, each false where there is none; nil where neither
-- has it. What is shared is nothing but a head.
local function open_coupon(state, sequence, now, packed, row)
  local shared_at = not packed and row and find_part(state, row, sequence)
  if not packed and not shared_at then
    return nil
  end
  local record = packed and unpack_record(packed, sequence) or unpack_head(row, shared_at, sequence)
  if state.is_undoing then
    keep_from_undoing(record, state.extensions)
  end
  bring_up_to_date(record, state, now)
  return record
end

local function load_record(state, sequence, now)
  local packed = redis.call('HGET', record_place(state, sequence))
  return open_coupon(state, sequence, now, packed,
    not packed and state.in_rows and redis.call('HGET', row_place(state, sequence)))
end

-- Moves a coupon in all that counts statuses from the one it was stored under to the one it has: in the ledger; in
-- that of drawn money where it has an amount of its own; in a recount that is under way and has passed it, so that what
-- was recounted so far stays true while coupons change behind it; among those who hold coupons, and among what is
-- reserved. A record that is written with another status or redemption has gone through here.
local function move_record(state_key, state, sequence, record)
  local from, to, recount, limits = record.stored_status, record.status, state.recount, state.config.holder_limits
  local left, reached, money = LEDGER[from], LEDGER[to], 0
  state[left] = state[left] - 1
  state[reached] = state[reached] + 1
  if (from <= REDEEMED) ~= (to <= REDEEMED) then
    money = committed_in(state, record, to) - committed_in(state, record, from)
    state.committed = state.committed + money
  end
  if record.amount then
    move_drawn(state_key, left, reached, record.amount)
  end
  if recount and sequence < recount.next then
    recount.counts[from] = recount.counts[from] - 1
    recount.counts[to] = recount.counts[to] + 1
    recount.money = recount.money + money
    state.recount_moved = true
  end
  record.stored_status = to
  if limits then
    move_holder(state_key, limits, sequence, is_held(from) and record.stored_redemption or nil,
      is_held(to) and record.redemption or nil)
    record.stored_redemption = record.redemption
  end
  if from == RESERVED or to == RESERVED then
    local holds = key_of(state_key, 'holds')
    if to == RESERVED then
      redis.call('ZADD', holds, record.redemption.hold_until, sequence)
    else
      redis.call('ZREM', holds, sequence)
    end
  end
end

-- Writes a record back that open_coupon or load_record returned.
local function save_record(state_key, state, sequence, record)
  local key, field = record_place(state, sequence)
  redis.call('HSET', key, field, pack_record(record))
  move_record(state_key, state, sequence, record)
end

local function describe_redemption(word, record)
  local redemption = record.redemption
  return { word, record.attempts, REDEMPTION_WORDS[redemption.status], redemption.at, redemption.discount,
    redemption.hold_until, redemption.merchant, redemption.order }
end

local function describe_coupon(word, state, record)
  return { word, STATUS_WORDS[record.status], user_of(state, record), record.issued_at, record.starts_at,
    record.expires_at, record.amount }
end
