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
  increase('HINCRBYFLOAT', spent_key(owner, day), 'work', work)
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

-- An owner who deleted an image has this in place of the time until which it is kept.
local DELETED = -1

local function is_deleted(name)
  return tonumber(redis.call('ZSCORE', PREFIX.owners .. name, field('owner') or '') or '') == DELETED
end

-- Keeps an image longer, unless its owner has deleted it: the bytes were not stored again.
local function keep_longer(name, expires)
  if not is_deleted(name) then
    keep(name, expires)
  end
end

-- Calls `work` with the key of each of an owner's jobs that made this image, the latest first. Each record names
-- the job before it.
local function each_maker(owner, name, work)
  local job = redis.call('GET', PREFIX.maker .. owner .. ':' .. name)
  while job and redis.call('EXISTS', PREFIX.job .. job) == 1 do
    work(PREFIX.job .. job)
    job = redis.call('HGET', PREFIX.job .. job, 'earlier:' .. name)
  end
end
