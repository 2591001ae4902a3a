-- What a record keeps of extensions that do not concern every coupon alike: its marks.
-- A mark is a byte of a record: the number of a scoped extension that concerns the coupon; or, with KEPT added, of an
-- extension that holds for good, since the coupon was used before it was undone.
local KEPT = 128

local function is_marked(marks, mark)
  return marks ~= nil and string.find(marks, string.char(mark), 1, true) ~= nil
end

local function mark(record, byte)
  if not is_marked(record.marks, byte) then
    record.marks = (record.marks or '') .. string.char(byte)
  end
end
