-- The holder gives a job back unfinished: at the front of the queue if the attempt does not count,
-- where its owner's next job goes if it does.
-- ARGV: id, token, reason, '1' if the attempt does not count
-- Answers released | lost.
local token, reason, is_free = ARGV[2], ARGV[3], ARGV[4] == '1'

if field('token') ~= token then
  return 'lost'
end
local status = field('status')
if status == 'queued' then
  return 'released' -- the reply to the first call was lost
end
if status ~= 'running' then
  return 'lost'
end
count_retry(reason)
local attempt = tonumber(field('attempt'))
if is_free then
  attempt = attempt - 1
  redis.call('HSET', JOB, 'attempt', attempt)
else
  redis.call('HINCRBY', TOTALS, 'retried', 1)
end
redis.call('HSET', JOB, 'status', 'queued', 'step', 0)
redis.call('HDEL', JOB, 'eta')
redis.call('ZREM', RUNNING, id)
redis.call('ZADD', QUEUED, now, id)
redis.call('ZREM', RQ_LEASES, id .. ':' .. token)
redis.call('HSET', RQ_JOB, 'status', 'queued')
redis.call('LREM', RQ_QUEUE, 0, id)
if is_free then
  redis.call('LPUSH', RQ_QUEUE, id)
else
  join_line()
end
announce('retrying', cjson.encode({attempt = attempt + 1, reason = reason}))
return 'released'
