-- Makes a checked import the campaign's codes, all of them in one step; a campaign has one import.
-- KEYS     the import, the campaign's codes
-- ARGV     id of the import
-- Returns  published, imported_before or gone
if redis.call('HGET', KEYS[2], 'id') == ARGV[1] then
  return 'published'
elseif redis.call('EXISTS', KEYS[2]) == 1 then
  return 'imported_before'
elseif redis.call('EXISTS', KEYS[1]) == 0 then
  return 'gone'
end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('PERSIST', KEYS[2])
return 'published'
