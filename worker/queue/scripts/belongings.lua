-- What belongs to the owner of a job; `worker/queue/owner_index.py` reads it.
local function owned_jobs()
  return 'kirazuri:jobs:' .. (field('owner') or '')
end

local function unfinished_jobs()
  return 'kirazuri:unfinished:' .. (field('owner') or '')
end

-- Work of a day. A hash, since INCRBYFLOAT in a script overwrites the heap of Redis 6.2: it shortens
-- the arguments that the server keeps for the script's next command.
local DAY = 86400
local function spent_key(owner, day)
  return string.format('kirazuri:spent:%s:%d', owner, day)
end

local function spend(owner, day, cost)
  redis.call('HINCRBYFLOAT', spent_key(owner, day), 'work', cost)
  redis.call('EXPIREAT', spent_key(owner, day), (day + 2) * DAY)
end

-- A picture is kept until then, for the owner of this job. Owners are remembered for a day longer, so
-- that they hear of an expired picture and others of none.
local function keep(name, expires)
  local owners = 'kirazuri:owners:' .. name
  redis.call('ZADD', IMAGES, 'GT', expires, name)
  redis.call('ZADD', owners, 'GT', expires, field('owner') or '')
  redis.call('EXPIREAT', owners, math.ceil(redis.call('ZSCORE', IMAGES, name)) + DAY)
end
