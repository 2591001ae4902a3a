-- When a coupon is valid: the rule of service/domain/validity.py applied by the store's clock.
-- Uses     extension
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

-- The window of a coupon of that sequence issued then, when `made` extensions had been made; without a sequence, of the
-- next coupon, as if it were of the first wave. Where every coupon expires at the same instant extensions have moved
-- that instant; where validity counts from issue they concern earlier coupons only. All coupons of one instant expire
-- together, whatever their wave, so that the sequence stays the index of expiries.
local function window_of(validity, issued_at, extensions, made, sequence)
  local waves = validity.waves
  local wave = waves and ((sequence or 0) + waves.first) % waves.count
  if validity.expires_at then
    local starts_at = waves and waves.starts[wave + 1] or validity.starts_at or issued_at
    return starts_at > issued_at and starts_at or issued_at,
      made == 0 and validity.expires_at or move_instant(validity.expires_at, extensions, made, sequence)
  end
  local offsets = validity.offsets
  local starts_at = add_duration(issued_at, validity.wait_days, validity.wait_ms, offsets)
  local last_start = starts_at
  if waves then
    last_start = add_duration(starts_at, (waves.count - 1) * waves.days, (waves.count - 1) * waves.ms, offsets)
    starts_at = add_duration(starts_at, wave * waves.days, wave * waves.ms, offsets)
  end
  return starts_at, add_duration(last_start, validity.days, validity.exact_ms, offsets)
end
