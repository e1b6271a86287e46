-- Begin to remove pictures: those whose time is over, and of the given ones those no record knows.
-- Until `swept` says that the bytes are gone, and for a while after, the removal is on record, so
-- that a worker which made the same picture meanwhile learns of it and stores it again.
-- ARGV: '', most, seconds after which an interrupted removal is begun again, names...
-- Answers the names whose bytes are to be removed now.
local most, patience, found = tonumber(ARGV[2]), tonumber(ARGV[3]), {}

local function begin(name)
  redis.call('ZREM', IMAGES, name)
  redis.call('ZADD', REMOVALS, UNDER_WAY + now, name)
  found[#found + 1] = name
end

for _, name in ipairs(redis.call('ZRANGEBYSCORE', REMOVALS, UNDER_WAY, UNDER_WAY + now - patience,
    'LIMIT', 0, most)) do
  begin(name)
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', IMAGES, 0, now, 'LIMIT', 0, most)) do
  if redis.call('EXISTS', holders(name)) == 1 then
    -- Out of the way of those behind it; the end of the job that needs it sets the real time.
    redis.call('ZADD', IMAGES, now + 3600, name)
  else
    begin(name)
  end
end
for index = 4, #ARGV do
  if not redis.call('ZSCORE', IMAGES, ARGV[index]) and not redis.call('ZSCORE', REMOVALS, ARGV[index]) then
    begin(ARGV[index])
  end
end
return found
