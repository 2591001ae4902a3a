-- When a coupon is valid: the rule of service/domain/validity.py applied by the store's clock.
local DAY_MS = 86400000

local function offset_at(offsets, instant)
  for i = #offsets - 1, 1, -2 do
    if offsets[i] <= instant then
      return offsets[i + 1]
    end
  end
  return offsets[2]
end

-- The number of the day that the wall's calendar shows.
local function day_at(offsets, instant)
  return math.floor((instant + offset_at(offsets, instant)) / DAY_MS)
end

-- When the wall shows that time. One that occurs twice means the first occurrence, one that is skipped is read with
-- the offset before the gap: PEP 495 with fold=0.
local function instant_of(wall, offsets)
  local before, after = offset_at(offsets, wall - DAY_MS), offset_at(offsets, wall + DAY_MS)
  local first, second = wall - before, wall - after
  if offset_at(offsets, first) ~= before and offset_at(offsets, second) == after then
    return second
  end
  return first
end

-- Days move the clock on the wall, milliseconds move time.
local function add_duration(instant, days, exact_ms, offsets)
  if days == 0 then
    return instant + exact_ms
  end
  return instant_of(instant + offset_at(offsets, instant) + days * DAY_MS, offsets) + exact_ms
end

-- The expiry after extensions `from` to `to`: each lifts what was still valid when it was made, and none shortens.
local function extend_expiry(expires_at, extensions, from, to)
  for i = from, to do
    local extension = extensions[i]
    if expires_at > extension.made_at and extension.until_ms > expires_at then
      expires_at = extension.until_ms
    end
  end
  return expires_at
end

-- The window of a coupon issued then, when `made` extensions had been made. Where every coupon expires at the same
-- instant they have moved that instant; where validity counts from issue they concern earlier coupons only.
local function window_of(validity, issued_at, extensions, made)
  if validity.expires_at then
    local starts_at = math.max(validity.starts_at or issued_at, issued_at)
    return starts_at, extend_expiry(validity.expires_at, extensions, 1, made)
  end
  local starts_at = add_duration(issued_at, validity.wait_days, validity.wait_ms, validity.offsets)
  return starts_at, add_duration(starts_at, validity.days, validity.exact_ms, validity.offsets)
end

-- How many extensions had been made when a coupon of that sequence was issued.
local function extensions_before(extensions, sequence)
  local made = 0
  while made < #extensions and extensions[made + 1].issued <= sequence do
    made = made + 1
  end
  return made
end
