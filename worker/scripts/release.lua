-- The holder gives a job back unfinished. RQ's side (the push) is the caller's.
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
local attempt = tonumber(field('attempt'))
if is_free then
  redis.call('HINCRBY', JOB, 'attempt', -1)
else
  redis.call('HINCRBY', TOTALS, 'retried', 1)
end
redis.call('HSET', JOB, 'status', 'queued', 'step', 0)
redis.call('HDEL', JOB, 'eta')
redis.call('ZREM', RUNNING, id)
redis.call('ZADD', QUEUED, now, id)
announce('retrying', cjson.encode({attempt = attempt + (is_free and 0 or 1), reason = reason}))
return 'released'
