-- A shard's extensions, in the order in which they were made: made_at, issued (how many coupons there were), until_ms
-- or by_ms; include_expired where coupons come back that were over; scoped where it holds only for coupons marked with
-- it; once undone, undone_made and undone_issued (how many extensions and coupons there were) and undone_at, and
-- undoing until every coupon has it written.
-- The last instant of the year 9998, after which no time can be written in every zone.
local END_OF_TIME = 253370764799999

local function lift(extension, expires_at)
  local lifted = extension.by_ms and math.min(expires_at + extension.by_ms, END_OF_TIME) or extension.until_ms
  return math.max(expires_at, lifted)
end

-- The expiry after extensions `from` to `to`, some of them undone. `holds(i, made)` tells whether extension i holds,
-- now or, where `made` is given, when that extension was made: what an extension found valid then, it has lifted,
-- whatever was undone since.
local function fold(expires_at, extensions, from, to, holds)
  local found_valid = {}
  local function expiry_after(last, made)
    local folded = expires_at
    for i = from, last do
      if found_valid[i] and holds(i, made) then
        folded = lift(extensions[i], folded)
      end
    end
    return folded
  end
  for i = from, to do
    local extension = extensions[i]
    found_valid[i] = extension.scoped or extension.include_expired or expires_at > extension.made_at
      or expiry_after(i - 1, i) > extension.made_at
  end
  return expiry_after(to)
end

-- Where every coupon expires at the same instant: that instant for a coupon of that sequence, or for the next one, when
-- `made` extensions had been made. What was undone after a coupon was issued has still made its first answer.
local function move_instant(expires_at, extensions, made, sequence)
  return fold(expires_at, extensions, 1, made, function(i, asked_by)
    local extension = extensions[i]
    if extension.scoped then
      return false
    elseif not extension.undone_made then
      return true
    elseif asked_by then
      return extension.undone_made >= asked_by
    end
    return sequence ~= nil and extension.undone_issued > sequence
  end)
end

-- How many extensions had been made when a coupon of that sequence was issued.
local function extensions_before(extensions, sequence)
  local made = 0
  while made < #extensions and extensions[made + 1].issued <= sequence do
    made = made + 1
  end
  return made
end
