-- How far a shard's events were exported and trimmed, and whether there is anything to do about it.
-- Uses     clock, state
-- KEYS[1]  the shard's state
-- ARGV     milliseconds between two exports, milliseconds that exported events stay
-- Returns  {1 if an export is due, last event exported, day of the open file, its bytes, last event trimmed}
local export = redis.call('HMGET', key_of(KEYS[1], 'export'), 'id', 'day', 'bytes', 'trimmed', 'at')
local now, exported = now_ms(), export[1] or '0-0'

-- Whether there is an event from that id on, to the end or to another.
local function any_event(from, to)
  return #redis.call('XRANGE', key_of(KEYS[1], 'events'), from, to, 'COUNT', 1) > 0
end

local function is_due()
  if now - tonumber(export[5] or 0) < tonumber(ARGV[1]) then
    return false
  end
  local old_enough = math.min(tonumber(string.match(exported, '^%d+')), now - tonumber(ARGV[2]))
  return any_event('(' .. exported, '+') or (old_enough > 0 and any_event('-', old_enough))
end

return { is_due() and 1 or 0, exported, export[2] or '', tonumber(export[3] or 0), export[4] or '0-0' }
