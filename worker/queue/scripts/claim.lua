-- A worker takes a job from the queue, or from a worker whose lease has expired. Counts the attempt.
-- ARGV: id, token, worker, maximum attempts, '1' if the engine is empty, error of a lost job, result TTL
-- Returns {outcome, ...}; outcome is claimed (the job follows) | solo (last attempt, back in the queue:
-- run it alone) | held (another worker has it) | gone.
local token, worker, max_attempts = ARGV[2], ARGV[3], tonumber(ARGV[4])
local is_alone, lost_error, result_ttl = ARGV[5] == '1', ARGV[6], tonumber(ARGV[7])

-- `span` is the trace context of the previous attempt; the new span links to it.
local function claimed(span)
  local record = redis.call('HMGET', KEY.job, 'attempt', 'request', 'warnings', 'created', 'started',
    'owner', 'priority', 'traceparent', 'request_id')
  record[#record + 1] = span
  return {'claimed', unpack(record)}
end

-- RQ's own mark of a job that it saw between the queue and a worker.
redis.call('DEL', KEY.rq_intermediate .. RQ.first_seen .. id)
redis.call('LREM', KEY.rq_intermediate, 0, id)
local status, holder, attempt = field('status'), field('token'), tonumber(field('attempt'))
if not status or is_terminal(status) then
  redis.call('DEL', KEY.rq_job)
  return {'gone'}
end
if status == 'running' and holder == token then
  return claimed(false)
end
if status == 'running' and has_lease(holder) then
  return {'held'}
end
if field('cancel') or is_overdue() then
  finish('cancelled', '{}', result_ttl)
  return {'gone'}
end
if attempt >= max_attempts then
  redis.call('HSET', KEY.job, 'error', lost_error)
  finish('failed', '{"error":' .. lost_error .. '}', result_ttl)
  return {'gone'}
end
if attempt > 0 and attempt + 1 >= max_attempts and not is_alone then
  serve_turn()
  redis.call('LREM', KEY.rq_list, 0, id)
  redis.call('LPUSH', KEY.rq_list, id)
  return {'solo'}
end

attempt = attempt + 1
if status == 'running' then
  redis.call('HINCRBY', KEY.counters, 'retried', 1)
  count_retry('worker_lost')
  publish_event('retrying', cjson.encode({attempt = attempt, reason = 'worker_lost'}))
end
if not field('started') then
  observe('waited', now - tonumber(field('created') or now))
end
redis.call('HSET', KEY.job, 'status', 'running', 'token', token, 'worker', worker, 'attempt', attempt,
  'started', stamp(now), 'step', 0)
local span = field('span')
redis.call('HDEL', KEY.job, 'eta', 'span')
serve_turn()
redis.call('ZREM', KEY.queued, id)
redis.call('ZADD', KEY.running, now, id)
publish_event('started', cjson.encode({attempt = attempt, worker = worker}))
return claimed(span)
