-- Bounded queue, limits of the owner's key, idempotency, record, first event, RQ hash and push, in one step.
-- ARGV: id, limit, idempotency key name ('' for none), its fingerprint, its ttl,
--       '1' where the key stands for this job from now on and for none before,
--       names of stored pictures that it starts from, result ttl, owner,
--       how many unfinished jobs the owner may have ('' for any number),
--       how much work a day ('' for any amount), work of this job,
--       number of record arguments, record field/value..., RQ field/value...
-- Repeating the call with the same id changes nothing, so a client may retry a lost reply.
local limit, idempotency, fingerprint, ttl = tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local is_renewed, names, result_ttl = ARGV[6] == '1', cjson.decode(ARGV[7]), tonumber(ARGV[8])
local owner, concurrency, quota, cost = ARGV[9], tonumber(ARGV[10]), tonumber(ARGV[11]), ARGV[12]
local record_size = tonumber(ARGV[13])
local unfinished, jobs = 'kirazuri:unfinished:' .. owner, 'kirazuri:jobs:' .. owner
local day = math.floor(now / DAY)

-- Pictures that came with a request which is refused have no job to go with: away with them soon.
local function refused(answer, known_id)
  for _, name in ipairs(names) do
    redis.call('ZADD', IMAGES, 'NX', now + 60, name)
  end
  return {answer, known_id}
end

if redis.call('EXISTS', JOB) == 1 then
  return {'admitted', id}
end
if is_renewed then
  redis.call('DEL', idempotency)
elseif idempotency ~= '' then
  local known = redis.call('HMGET', idempotency, 'job', 'fingerprint')
  if known[1] and redis.call('EXISTS', 'kirazuri:job:' .. known[1]) == 1 then
    if known[2] ~= fingerprint then
      return refused('conflict', known[1])
    end
    return {'repeated', known[1]}
  end
end
if concurrency and redis.call('SCARD', unfinished) >= concurrency then
  -- None of them may hold a place that it does not need: a record that was lost, an older worker.
  for _, other in ipairs(redis.call('SMEMBERS', unfinished)) do
    local status = redis.call('HGET', 'kirazuri:job:' .. other, 'status')
    if not status or is_terminal(status) then
      redis.call('SREM', unfinished, other)
    end
  end
  if redis.call('SCARD', unfinished) >= concurrency then
    return refused('busy', id)
  end
end
local spent = quota and tonumber(redis.call('HGET', spent_key(owner, day), 'work') or 0)
if quota and spent + tonumber(cost) > quota then
  return refused('spent', id)
end
if redis.call('ZCARD', QUEUED) >= limit then
  return refused('full', id)
end
for _, name in ipairs(names) do
  local removed = redis.call('ZSCORE', REMOVALS, name)
  if removed and tonumber(removed) > now - 5 then
    return {'removed', name} -- an older one of the same bytes, just when this one was stored
  end
end

redis.call('HSET', JOB, 'status', 'queued', 'attempt', 0, 'created', stamp(now))
redis.call('HSET', JOB, unpack(ARGV, 14, 13 + record_size))
redis.call('HSET', RQ_JOB, unpack(ARGV, 14 + record_size))
redis.call('HSET', JOB, 'inputs', ARGV[7])
for _, name in ipairs(names) do
  redis.call('SADD', holders(name), id)
  keep(name, now + result_ttl)
end
redis.call('SADD', unfinished, id)
redis.call('ZADD', jobs, 0, id)
redis.call('PERSIST', jobs)
-- The list forgets what has expired: more than one may leave for each that comes. Looked for among the
-- oldest, and somewhere, in case some of the oldest never end.
local somewhere = tonumber(time[2]) % redis.call('ZCARD', jobs)
for _, first in ipairs({0, somewhere}) do
  for _, other in ipairs(redis.call('ZRANGE', jobs, first, first + 4)) do
    if redis.call('EXISTS', 'kirazuri:job:' .. other) == 0 then
      redis.call('ZREM', jobs, other)
    end
  end
end
if quota then
  redis.call('HSET', JOB, 'paid_on', day)
  spend(owner, day, cost)
end
local patience = tonumber(field('cancel_after'))
if patience then
  redis.call('HSET', JOB, 'deadline', stamp(now + patience))
  redis.call('ZADD', DEADLINES, now + patience, id)
end
redis.call('SADD', 'rq:queues', RQ_QUEUE)
join_line()
redis.call('ZADD', QUEUED, now, id)
redis.call('HINCRBY', TOTALS, 'accepted', 1)
if idempotency ~= '' then
  redis.call('HSET', idempotency, 'job', id, 'fingerprint', fingerprint)
  redis.call('EXPIRE', idempotency, ttl)
end
announce('queued', '{}')
return {'admitted', id}
