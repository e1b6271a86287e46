-- What the owner of a job has: jobs, images, work of a day. `worker/queue/owner_index.py` reads it.
local function owned_jobs()
  return PREFIX.jobs .. (field('owner') or '')
end

local function unfinished_jobs()
  return PREFIX.unfinished .. (field('owner') or '')
end

-- Work of a day. It is a hash with one field, as older releases wrote it.
local DAY = 86400
local function spent_key(owner, day)
  return string.format('%s%s:%d', PREFIX.spent, owner, day)
end

local function spend(owner, day, work)
  redis.call('HINCRBYFLOAT', spent_key(owner, day), 'work', work)
  redis.call('EXPIREAT', spent_key(owner, day), (day + 2) * DAY)
end

-- Keeps an image for the owner of this job until `expires`. The owner is remembered for a day longer:
-- then an expired image answers 410 to its owner and 404 to others.
local function keep(name, expires)
  local owners = PREFIX.owners .. name
  redis.call('ZADD', KEY.images, 'GT', expires, name)
  redis.call('ZADD', owners, 'GT', expires, field('owner') or '')
  redis.call('EXPIREAT', owners, math.ceil(redis.call('ZSCORE', KEY.images, name)) + DAY)
end
