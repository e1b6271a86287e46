-- Helpers that all scripts share. `lua_script.py` puts KEY, PREFIX, RQ and other constants of
-- the service in front of this file.

local id

-- Points KEY to the keys of a queue and of the lines for a checkpoint in it. Each has its own, so a worker
-- sees only jobs that it can read and run.
local function use_queue(queue, card, checkpoint)
  local fair = PREFIX.fair .. queue .. ':' .. (card or '') .. ':' .. (checkpoint or '') .. ':'
  KEY.rq_list, KEY.rq_leases = RQ.list .. queue, RQ.leases .. queue
  KEY.rq_intermediate = KEY.rq_list .. RQ.intermediate
  KEY.turns, KEY.weights, KEY.line = fair .. 'turns', fair .. 'weights', fair .. 'line:'
  KEY.slots, KEY.first_slots = fair .. 'slots', fair .. 'first'
end

-- Points KEY to what is a job's own.
local function use_record(job)
  id, KEY.job, KEY.events, KEY.rq_job = job, PREFIX.job .. job, PREFIX.events .. job, RQ.job .. job
end

-- Points KEY to the keys of a job and of its queue. A record names its queue; those of the first release do
-- not, because it had only one. `queue` is the queue of an id without a record.
local function use_job(job, queue)
  use_record(job)
  local known = redis.call('HMGET', KEY.job, 'status', 'queue', 'card', 'checkpoint')
  if known[1] then
    queue = known[2] or RQ.first_queue
  end
  use_queue(queue, known[3], known[4])
end
use_job(ARGV[1], QUEUES_OLDEST_FIRST[#QUEUES_OLDEST_FIRST])

-- All records use one clock, the server's.
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000

local function stamp(seconds)
  return string.format('%.6f', seconds)
end

local function field(name)
  return redis.call('HGET', KEY.job, name)
end

-- A text as a finite number; nil if it is missing or none, as another program may have written.
local function finite(text)
  local value = tonumber(text or '')
  return value and value - value == 0 and value or nil
end

local function number(name)
  return finite(field(name))
end

-- Adds to a number of a hash and returns the sum. What is no number counts as 0: it must not stop a job.
local function increase(command, key, name, amount)
  local sum = redis.pcall(command, key, name, amount)
  if type(sum) == 'table' then
    redis.call('HDEL', key, name)
    sum = redis.call(command, key, name, amount)
  end
  return sum
end

local function count(name)
  increase('HINCRBY', KEY.counters, name, 1)
end

-- A JSON list or object; an empty one if the text is missing or none, as another release may have written.
local function decoded(text)
  local is_json, value = pcall(cjson.decode, text or '')
  return is_json and type(value) == 'table' and value or {}
end

local function is_terminal(status)
  return status == 'succeeded' or status == 'failed' or status == 'cancelled'
end

local function is_overdue()
  local deadline = number('deadline')
  return deadline and deadline <= now
end

local function has_lease(token)
  local expires = token and redis.call('ZSCORE', KEY.rq_leases, id .. RQ.separator .. token)
  return expires and tonumber(expires) > now
end

-- A removal under way has this plus its time as its score in KEY.removals; one that is over, its time.
local REMOVING = 1e10

-- Writes a webhook delivery, with the record as it is now, in the same step as the transition.
local DELIVERY_TTL = 7 * 86400
local WEBHOOK_EVENTS = {started = true, succeeded = true, failed = true, cancelled = true}
local function enqueue_delivery(event, event_id)
  local webhook = WEBHOOK_EVENTS[event] and field('webhook')
  if not webhook or field('webhook_gone') then
    return
  end
  for _, wanted in ipairs(decoded(webhook).events or {}) do
    if wanted == event then
      local delivery = id .. '-' .. event_id
      local key = PREFIX.delivery .. delivery
      redis.call('COPY', KEY.job, key)
      redis.call('HSET', key, 'delivery_event', event)
      redis.call('EXPIRE', key, DELIVERY_TTL)
      redis.call('ZADD', KEY.outbox, now, delivery)
    end
  end
end

local is_woken = {}
local function publish_event(event, data)
  local event_id = redis.call('XADD', KEY.events, 'MAXLEN', '~', 500, '*', 'event', event, 'data', data)
  redis.call('HSET', KEY.job, 'last_event', event_id)
  increase('HINCRBY', KEY.job, 'events', 1)
  if not is_woken[id] then
    is_woken[id] = true -- who listens sees all events of this script at once
    redis.call('XADD', KEY.wake, 'MAXLEN', '~', 10000, '*', 'job', id)
  end
  enqueue_delivery(event, event_id)
end

-- Histograms in the counters' hash: `name:bound` counts values above the previous bound and up to
-- this one, `name:sum` is the sum of all values.
local function observe(name, seconds)
  local bucket = '+Inf'
  for _, bound in ipairs(BUCKETS) do
    if seconds <= tonumber(bound) then
      bucket = bound
      break
    end
  end
  count(name .. ':' .. bucket)
  increase('HINCRBYFLOAT', KEY.counters, name .. ':sum', stamp(seconds))
end

local function count_retry(reason)
  count('retried:' .. reason)
end
