-- Queues a job: queue limit, limits of the owner's key, idempotency, record, first event, RQ's hash, the
-- owner's line, in one step.
-- ARGV: id, queue limit, idempotency key name ('' for none), its fingerprint, its TTL,
--       '1' if the idempotency key stands for this job from now on and for no earlier one,
--       JSON of the stored images that the job starts from, result TTL, owner,
--       limit of the owner's unfinished jobs ('' for none),
--       limit of the owner's work a day ('' for none), work of this job,
--       throughput of the workers in work a second, number of these workers,
--       faults of the server for which it accepts no job,
--       name of the key of calls like this one ('' for none), process and id of the call, TTL of the key,
--       number of record arguments, record field/value..., RQ field/value...
-- Returns {outcome, job id, image name or fault, mean work of a job, the owner's unfinished jobs, the
-- owner's work of today}, and for admitted and repeated also {jobs before it, running jobs, its record}. So
-- no later read can fail. The outcome is admitted | repeated | conflict | unfit | busy | spent | full |
-- removed. A repeat with the same id changes nothing, so a client may retry after a lost reply.
local limit, idempotency, fingerprint, ttl = tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local is_renewed, names, result_ttl = ARGV[6] == '1', cjson.decode(ARGV[7]), tonumber(ARGV[8])
local owner, concurrency, quota, work = ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]
local throughput, workers = tonumber(ARGV[13]), tonumber(ARGV[14])
local refused_faults = ARGV[15]
local calls, process, call, calls_ttl = ARGV[16], ARGV[17], ARGV[18], tonumber(ARGV[19])
local record_size = tonumber(ARGV[20])
local unfinished, jobs = PREFIX.unfinished .. owner, PREFIX.jobs .. owner
local day = math.floor(now / DAY)
local mean_cost = redis.call('GET', KEY.mean_cost) or '0'

-- The ETA that the client is told, as in `worker/queue/eta.py`; nil if nothing was measured.
local function eta()
  local ahead = queue_position() + redis.call('ZCARD', KEY.running) / 2
  local mean = finite(mean_cost) or 0
  if throughput > 0 and (ahead == 0 or mean > 0) then
    local waiting = string.format('%.1f', ahead * mean / throughput)
    local own = string.format('%.1f', tonumber(work) * workers / throughput)
    return string.format('%.1f', tonumber(waiting) + tonumber(own))
  end
end

local function answer(outcome, subject)
  return {outcome, subject, mean_cost, redis.call('SCARD', unfinished),
    redis.call('HGET', spent_key(owner, day), 'work') or '0'}
end

local function answer_with_job(outcome, job)
  local reply = answer(outcome, job)
  use_job(job, RQ.first_queue)
  reply[#reply + 1] = field('status') == 'queued' and queue_position() or 0
  reply[#reply + 1] = redis.call('ZCARD', KEY.running)
  reply[#reply + 1] = redis.call('HGETALL', KEY.job)
  return reply
end

-- Images that came with a refused request belong to no job. They are removed soon.
local function refused(outcome, subject)
  for _, name in ipairs(names) do
    redis.call('ZADD', KEY.images, 'NX', now + 60, name)
  end
  return answer(outcome, subject)
end

-- The idempotency key stands for a job from now on.
local function remember(job)
  if idempotency ~= '' then
    redis.call('HSET', idempotency, 'job', job, 'fingerprint', fingerprint)
    redis.call('EXPIRE', idempotency, ttl)
  end
end

-- Records that a call waits for a job. `process call` of another one that does counts while its process lives.
local function wait_for(job)
  if calls ~= '' then
    redis.call('HSET', calls, job, process .. ' ' .. call)
    redis.call('EXPIRE', calls, calls_ttl)
    redis.call('SET', PREFIX.waiter .. process, '1', 'PX', WAITER_MS)
  end
end

-- The oldest job of a call like this one that ended without its answer; nil if there is none.
local function unserved_job()
  local waiting = calls ~= '' and redis.call('HGETALL', calls) or {}
  local oldest
  for i = 1, #waiting, 2 do
    local job, other_process, other_call = waiting[i], string.match(waiting[i + 1], "^(%S*) ?(.*)$")
    local status = redis.call('HGET', PREFIX.job .. job, 'status')
    if not status or status == 'failed' or status == 'cancelled' then
      redis.call('HDEL', calls, job)
    elseif other_call == call or redis.call('EXISTS', PREFIX.waiter .. other_process) == 0 then
      oldest = (oldest and oldest < job) and oldest or job
    end
  end
  if not oldest and #waiting >= 2 * MAX_CALLS then
    calls = '' -- so many at once are not retries
  end
  return oldest
end

if redis.call('EXISTS', KEY.job) == 1 then
  return answer_with_job('admitted', id)
end
if is_renewed then
  redis.call('DEL', idempotency)
elseif idempotency ~= '' then
  local known = redis.call('HMGET', idempotency, 'job', 'fingerprint')
  if known[1] and redis.call('EXISTS', PREFIX.job .. known[1]) == 1 then
    if known[2] ~= fingerprint then
      return refused('conflict', known[1])
    end
    wait_for(known[1])
    return answer_with_job('repeated', known[1])
  end
end
local unserved = unserved_job()
if unserved then
  wait_for(unserved)
  remember(unserved)
  return answer_with_job('repeated', unserved)
end
local reason = fault_among(refused_faults)
if reason then
  return refused('unfit', reason)
end
if concurrency and redis.call('SCARD', unfinished) >= concurrency then
  -- Drop entries that hold a place by mistake: their record was lost, or an older worker ended them.
  for _, other in ipairs(redis.call('SMEMBERS', unfinished)) do
    local status = redis.call('HGET', PREFIX.job .. other, 'status')
    if not status or is_terminal(status) then
      redis.call('SREM', unfinished, other)
    end
  end
  if redis.call('SCARD', unfinished) >= concurrency then
    return refused('busy', id)
  end
end
local spent = quota and (finite(redis.call('HGET', spent_key(owner, day), 'work')) or 0)
if quota and spent + tonumber(work) > quota then
  return refused('spent', id)
end
if redis.call('ZCARD', KEY.queued) >= limit then
  return refused('full', id)
end
for _, name in ipairs(names) do
  local removed = redis.call('ZSCORE', KEY.removals, name)
  if removed and tonumber(removed) > now - 5 then
    return answer('removed', name) -- an older image of the same bytes, removed while this one was stored
  end
end

redis.call('HSET', KEY.job, 'status', 'queued', 'attempt', 0, 'created', stamp(now))
redis.call('HSET', KEY.job, unpack(ARGV, 21, 20 + record_size))
redis.call('HSET', KEY.rq_job, unpack(ARGV, 21 + record_size))
use_job(id)
redis.call('HSET', KEY.job, 'inputs', ARGV[7])
for _, name in ipairs(names) do
  redis.call('SADD', PREFIX.holders .. name, id)
  keep(name, now + result_ttl)
end
redis.call('SADD', unfinished, id)
redis.call('ZADD', jobs, 0, id)
redis.call('PERSIST', jobs)
-- Remove up to ten expired jobs from the owner's list: some of the oldest, and some at a random place in
-- case the oldest do not end.
local random_place = tonumber(time[2]) % redis.call('ZCARD', jobs)
for _, first in ipairs({0, random_place}) do
  for _, other in ipairs(redis.call('ZRANGE', jobs, first, first + 4)) do
    if redis.call('EXISTS', PREFIX.job .. other) == 0 then
      redis.call('ZREM', jobs, other)
    end
  end
end
if quota then
  redis.call('HSET', KEY.job, 'paid_on', day)
  spend(owner, day, work)
end
local patience = tonumber(field('cancel_after'))
if patience then
  redis.call('HSET', KEY.job, 'deadline', stamp(now + patience))
  redis.call('ZADD', KEY.deadlines, now + patience, id)
end
redis.call('SADD', KEY.rq_queues, KEY.rq_list)
join_queue()
redis.call('ZADD', KEY.queued, now, id)
local promised = eta()
if promised then
  redis.call('HSET', KEY.job, 'promised', promised)
end
count('accepted')
remember(id)
wait_for(id)
publish_event('queued', '{}')
return answer_with_job('admitted', id)
