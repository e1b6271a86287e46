-- The holder returns an unfinished job to the queue: to the front if the attempt does not count, else to
-- the turn of its owner's next job.
-- ARGV: id, token, reason, '1' if the attempt does not count
-- Returns released | lost.
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
local attempt = number('attempt') or 1
if is_free then
  attempt = attempt - 1
  redis.call('HSET', KEY.job, 'attempt', attempt)
else
  count('retried')
end
redis.call('HSET', KEY.job, 'status', 'queued', 'step', 0)
redis.call('HDEL', KEY.job, 'eta')
redis.call('ZREM', KEY.running, id)
redis.call('ZADD', KEY.queued, now, id)
redis.call('ZREM', KEY.rq_leases, id .. RQ.separator .. token)
redis.call('HSET', KEY.rq_job, 'status', 'queued')
redis.call('LREM', KEY.rq_list, 0, id)
if is_free then
  redis.call('LPUSH', KEY.rq_list, id)
else
  join_queue()
end
publish_event('retrying', cjson.encode({attempt = attempt + 1, reason = reason}))
return 'released'
