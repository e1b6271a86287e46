-- Begins to remove images: expired ones, and those of the given names that no record knows.
-- The removal is on record until a while after `end_removal`. So a worker that made the same image
-- meanwhile learns of it and stores the image again.
-- ARGV: '', maximum, seconds after which an interrupted removal is repeated, names...
-- Returns the names of the images whose bytes the caller must delete.
local most, patience, found = tonumber(ARGV[2]), tonumber(ARGV[3]), {}

local function begin(name)
  redis.call('ZREM', KEY.images, name)
  redis.call('ZADD', KEY.removals, REMOVING + now, name)
  found[#found + 1] = name
end

for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEY.removals, REMOVING, REMOVING + now - patience,
    'LIMIT', 0, most)) do
  begin(name)
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEY.images, 0, now, 'LIMIT', 0, most)) do
  if redis.call('EXISTS', PREFIX.holders .. name) == 1 then
    -- Make way for others; the end of the job that needs the image sets its real time.
    redis.call('ZADD', KEY.images, now + 3600, name)
  else
    begin(name)
  end
end
for index = 4, #ARGV do
  local name = ARGV[index]
  if not redis.call('ZSCORE', KEY.images, name) and not redis.call('ZSCORE', KEY.removals, name) then
    begin(name)
  end
end
return found
