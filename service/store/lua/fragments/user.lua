-- Whose a coupon is: its own record tells, or the row that it shares with its neighbours.
-- Uses     block
local function user_of(record)
  local row = record.row
  if not row then
    return record.user
  end
  local at, before = find_part(row, record.sequence)
  at = at + SHARED_BYTES
  for _ = 1, before do
    at = string.find(row, '\0', at, true) + 1
  end
  return string.sub(row, at, string.find(row, '\0', at, true) - 1)
end
