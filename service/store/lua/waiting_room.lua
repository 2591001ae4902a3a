-- Brings one campaign's waiting room to the present moment, and hands out places in its line.
-- Uses     clock, state
-- KEYS[1]  the first shard's state
-- ARGV     share of the users let in (permille), ramp (ms), its start (permille), shards, how long a call counts (ms),
--          the most that may wait, places wanted, MessagePack of passes: a call's first number, how many passed, …
-- Returns  false for an unknown shard; {not_running, status, starts_in or -1}; else {line, now, opened_at or 0, 1 if
--          the operator has paused the campaign, rate, next number, called, first place handed out, places,
--          {at, first, passed, …}, how many of those called had not come when their calls ended just now, start of
--          the issue window or 0}; places is -1 where nobody waits and everybody may go straight in
-- The line's pace is exact: the ramp's area times the rate. Places that nobody used come back to those behind, but add
-- at most a tenth to the pace.
local TICKET, SLOT_MS, STEP_MS, MOST_STEP_MS = 1000000, 1000, 200, 1000
local GIVEN_ON_DIVISOR = 10
local CREDIT_FIELDS = { 'next', 'called', 'credit', 'returned', 'turned_at', 'opened_at', 'served' }

local state = load_state(KEYS[1])
if not state then
  return false
end
local share, ramp_ms, ramp_start = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local shards, counting_ms, most_waiting = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local wanted, passes = tonumber(ARGV[7]), cmsgpack.unpack(ARGV[8])
local config, now = state.config, now_ms()
local paused = config.status == 'paused'
if wanted > 0 and not paused and config.status ~= 'scheduled' and config.status ~= 'running' then
  return { 'not_running', config.status, -1 }
end

local room_key = key_of(KEYS[1], 'room')
local room = { calls = {} }
local stored = redis.call('HMGET', room_key, 'calls', unpack(CREDIT_FIELDS))
for i, name in ipairs(CREDIT_FIELDS) do
  room[name] = tonumber(stored[i + 1] or 0)
end
local flat = stored[1] and cmsgpack.unpack(stored[1]) or {}
for i = 1, #flat, 3 do
  room.calls[#room.calls + 1] = { at = flat[i], first = flat[i + 1], passed = flat[i + 2] }
end
-- Before the start there is nothing to wait for, unless a pause had people wait already: a line that one early visitor
-- begins would be in everybody's way when the campaign opens.
local starts_at = config.starts_at or 0
if now < starts_at and room.next == room.called and not paused and share > 0 then
  return { 'not_running', 'scheduled', starts_at - now }
end
local rate, had_calls = config.issue_rate.per_second_milli * shards, #room.calls > 0
local changed, abandoned = false, 0

local function note_passes()
  for i = 1, #passes, 2 do
    for _, call in ipairs(room.calls) do
      if call.first == passes[i] then
        call.passed = call.passed + passes[i + 1]
        changed = true
      end
    end
  end
end

local function unused_of_first_call()
  local call, following = room.calls[1], room.calls[2]
  return math.max(0, (following and following.first or room.called) - call.first - call.passed)
end

-- Nobody is let in: whoever was called and has not come is in line again, at its head. Some numbers among theirs were
-- served: these are called once more, but nobody can come for them.
local function shut()
  if room.opened_at > 0 then
    while room.calls[1] and unused_of_first_call() == 0 do
      table.remove(room.calls, 1)
    end
    for _, call in ipairs(room.calls) do
      room.served = room.served + call.passed
    end
    room.called = room.calls[1] and room.calls[1].first or room.called
    room.calls, room.credit, room.opened_at = {}, 0, 0
    changed = true
  end
end

local function end_calls()
  while room.calls[1] and room.calls[1].at + counting_ms <= now do
    local unused = unused_of_first_call()
    local served = math.min(unused, room.served)
    table.remove(room.calls, 1)
    room.returned, room.served = room.returned + unused * TICKET, room.served - served
    abandoned, changed = abandoned + unused - served, true
  end
end

local function ramp_share(at)
  local elapsed = math.min(math.max(0, at - room.opened_at), ramp_ms)
  return ramp_start + (1000 - ramp_start) * elapsed / ramp_ms
end

local function open()
  if room.opened_at == 0 then
    room.opened_at, room.turned_at, changed = now, now, true
  end
  if now - room.turned_at >= STEP_MS or wanted > 0 then
    -- The ramp is a straight line, so its mean over the step is its area; a step that took too long is cut.
    local pace = rate * math.min(share, (ramp_share(room.turned_at) + ramp_share(now)) / 2) / 1000
    local earned = math.floor(pace * math.min(math.max(0, now - room.turned_at), MOST_STEP_MS))
    local given_on = math.min(room.returned, math.floor(earned / GIVEN_ON_DIVISOR))
    if room.called == room.next then
      -- Nobody waits: what nobody needs is not saved up, but for a moment's worth.
      room.returned, given_on = 0, 0
      room.credit = math.min(room.credit + earned, math.max(TICKET, math.floor(pace * MOST_STEP_MS)))
    else
      room.credit = room.credit + earned + given_on
      room.returned = room.returned - given_on
    end
    room.turned_at, changed = now, true
  end
end

local function call_next()
  local number = math.min(math.floor(room.credit / TICKET), room.next - room.called)
  if number > 0 then
    local last = room.calls[#room.calls]
    if not last or now - last.at >= SLOT_MS then
      room.calls[#room.calls + 1] = { at = now, first = room.called, passed = 0 }
    end
    room.called = room.called + number
    room.credit = room.credit - number * TICKET
  end
end

note_passes()
local is_shut = paused or share == 0 or now < starts_at
if is_shut then
  shut()
else
  end_calls()
  open()
end
local first, places = room.next, -1
if is_shut or share < 1000 or room.called < room.next then
  places = math.min(wanted, math.max(0, most_waiting - (room.next - room.called)))
  room.next = room.next + places
  changed = changed or places > 0
end
if not is_shut then
  call_next()
end

flat = {}
for _, call in ipairs(room.calls) do
  flat[#flat + 1] = call.at
  flat[#flat + 1] = call.first
  flat[#flat + 1] = call.passed
end
-- Only what has changed is written, and nothing at all where nobody waits or is awaited, or was until now.
local in_use = room.called < room.next or had_calls or #room.calls > 0 or is_shut
if changed and in_use and room.next > 0 then
  local fields = { 'calls', cmsgpack.pack(flat) }
  for _, name in ipairs(CREDIT_FIELDS) do
    fields[#fields + 1] = name
    fields[#fields + 1] = integer(room[name])
  end
  redis.call('HSET', room_key, unpack(fields))
end
return { 'line', now, room.opened_at, paused and 1 or 0, rate, room.next, room.called, first, places, flat,
  abandoned, starts_at }
