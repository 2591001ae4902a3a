-- Whether coupons may be redeemed at that instant: the opening of service/domain/opening.py, packed by
-- service/store/validity.py. Spans are two bytes an end, in minutes; dates are three bytes, in order.
-- Uses     validity
local function is_open(validity, instant)
  local opening = validity.opening

  local function has_date(dates, day)
    local low, high = 0, #dates / 3
    while low < high do
      local middle = math.floor((low + high) / 2)
      local on = struct.unpack('>I3', dates, 3 * middle + 1)
      if on == day then
        return true
      elseif on < day then
        low = middle + 1
      else
        high = middle
      end
    end
    return false
  end

  local function opens_on(day, minute)
    if has_date(opening.excluded_dates, day) then
      return false
    end
    -- The first of January 1970 was a Thursday.
    local spans = has_date(opening.extra_dates, day) and opening.any_day or opening.week[(day + 3) % 7 + 1]
    for at = 1, #spans, 4 do
      local from, to = struct.unpack('>I2I2', spans, at)
      if from <= minute and minute < to then
        return true
      end
    end
    return false
  end

  local wall = instant + offset_at(validity.offsets, instant)
  local day, minute = math.floor(wall / DAY_MS), math.floor(wall % DAY_MS / 60000)
  return opens_on(day, minute) or opens_on(day - 1, minute + 1440)
end
