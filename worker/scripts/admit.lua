-- Bounded queue, idempotency, record, first event, RQ hash and push, in one step.
-- ARGV: id, limit, idempotency key name ('' for none), its fingerprint, its ttl,
--       '1' where the key stands for this job from now on and for none before,
--       names of stored pictures that it starts from, result ttl,
--       number of record arguments, record field/value..., RQ field/value...
-- Repeating the call with the same id changes nothing, so a client may retry a lost reply.
local limit, idempotency, fingerprint, ttl = tonumber(ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local is_renewed, names = ARGV[6] == '1', cjson.decode(ARGV[7])
local result_ttl, record_size = tonumber(ARGV[8]), tonumber(ARGV[9])

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
redis.call('HSET', JOB, unpack(ARGV, 10, 9 + record_size))
redis.call('HSET', RQ_JOB, unpack(ARGV, 10 + record_size))
redis.call('HSET', JOB, 'inputs', ARGV[7])
for _, name in ipairs(names) do
  redis.call('SADD', holders(name), id)
  redis.call('ZADD', IMAGES, 'GT', now + result_ttl, name)
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
