-- Shared by all scripts: the keys of one job, in this order, and what every transition does.
local JOB, EVENTS, WAKE = KEYS[1], KEYS[2], KEYS[3]
local QUEUED, RUNNING, TOTALS = KEYS[4], KEYS[5], KEYS[6]
local RQ_QUEUE, RQ_TAKEN, RQ_LEASES, RQ_JOB = KEYS[7], KEYS[8], KEYS[9], KEYS[10]
-- A record says which RQ queue it lies in; the first release had only one.
if redis.call('EXISTS', JOB) == 1 then
  local queue = redis.call('HGET', JOB, 'queue') or 'kirazuri-v1'
  RQ_QUEUE, RQ_LEASES = 'rq:queue:' .. queue, 'rq:wip:' .. queue
  RQ_TAKEN = RQ_QUEUE .. ':intermediate'
end
local IMAGES, PACE, OUTBOX, REMOVALS, DEADLINES = KEYS[11], KEYS[12], KEYS[13], KEYS[14], KEYS[15]
local TURNS, LINES, SHARES, CLOCK = KEYS[16], KEYS[17], KEYS[18], KEYS[19]
local id = ARGV[1]

-- One clock for all records: the server's.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

-- In REMOVALS: when a picture's bytes were removed, or this and when that was begun.
local UNDER_WAY = 1e10

local function stamp(seconds)
  return string.format('%.6f', seconds)
end

local function field(name)
  return redis.call('HGET', JOB, name)
end

local function delivery_key(delivery)
  return 'kirazuri:delivery:' .. delivery
end

-- Who asked to be told of an event is told of this one: in the same step as the transition it goes
-- to the outbox, with the record as it is now.
local OUTBOX_TTL = 7 * 86400
local TOLD = {started = true, succeeded = true, failed = true, cancelled = true}
local function tell(event, event_id)
  local webhook = TOLD[event] and field('webhook')
  if not webhook or field('webhook_gone') then
    return
  end
  for _, wanted in ipairs(cjson.decode(webhook).events) do
    if wanted == event then
      local delivery = id .. '-' .. event_id
      redis.call('COPY', JOB, delivery_key(delivery))
      redis.call('HSET', delivery_key(delivery), 'delivery_event', event)
      redis.call('EXPIRE', delivery_key(delivery), OUTBOX_TTL)
      redis.call('ZADD', OUTBOX, now, delivery)
    end
  end
end

local function announce(event, data)
  local event_id = redis.call('XADD', EVENTS, 'MAXLEN', '~', 500, '*', 'event', event, 'data', data)
  redis.call('HSET', JOB, 'last_event', event_id)
  redis.call('HINCRBY', JOB, 'events', 1)
  redis.call('XADD', WAKE, 'MAXLEN', '~', 10000, '*', 'job', id)
  tell(event, event_id)
end

local function has_lease(token)
  local expires = token and redis.call('ZSCORE', RQ_LEASES, id .. ':' .. token)
  return expires and tonumber(expires) > now
end

-- Spreads for metrics, in TOTALS: `name:bound` counts what is above the bound before and at most this
-- one, `name:sum` adds up. `worker/queue/counters.py` knows the same bounds.
local BOUNDS = {'0.1', '0.25', '0.5', '1', '2.5', '5', '10', '30', '60', '120', '300', '600', '1800'}
local function observe(name, seconds)
  local class = '+Inf'
  for _, bound in ipairs(BOUNDS) do
    if seconds <= tonumber(bound) then
      class = bound
      break
    end
  end
  redis.call('HINCRBY', TOTALS, name .. ':' .. class, 1)
  redis.call('HINCRBYFLOAT', TOTALS, name .. ':sum', stamp(seconds))
end

local function count_retry(reason)
  redis.call('HINCRBY', TOTALS, 'retried:' .. reason, 1)
end

local function is_terminal(status)
  return status == 'succeeded' or status == 'failed' or status == 'cancelled'
end

-- The unfinished jobs that start from a stored picture: none of them may find it gone.
local function holders(name)
  return 'kirazuri:holders:' .. name
end

-- The job of an owner that last made a picture.
local function maker(name)
  return 'kirazuri:maker:' .. (field('owner') or '') .. ':' .. name
end

local function is_overdue()
  local deadline = field('deadline')
  return deadline and tonumber(deadline) <= now
end
