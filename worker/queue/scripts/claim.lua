-- A worker takes a job: from the queue, or from a worker whose lease is over. Counts the attempt.
-- ARGV: id, token, worker, most attempts, '1' if the engine is empty, error of a lost job,
--       result ttl, events ttl
-- Answers claimed | solo (last attempt, put back: run it alone) | held (another has it) | gone.
local token, worker, most, is_alone, lost = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1', ARGV[6]
local result_ttl, events_ttl = tonumber(ARGV[7]), tonumber(ARGV[8])

-- `span` is the trace context of the attempt before, for a link from the new one's.
local function claimed(span)
  local record = redis.call('HMGET', JOB, 'attempt', 'request', 'warnings', 'created', 'started',
    'owner', 'priority', 'traceparent', 'request_id')
  record[#record + 1] = span
  return {'claimed', unpack(record)}
end

-- RQ's mark on a job that it saw between the queue and a worker.
redis.call('DEL', RQ_TAKEN .. ':first_seen:' .. id)
redis.call('LREM', RQ_TAKEN, 0, id)
local status, holder, attempt = field('status'), field('token'), tonumber(field('attempt'))
if not status or is_terminal(status) then
  redis.call('DEL', RQ_JOB)
  return {'gone'}
end
if status == 'running' and holder == token then
  return claimed(false)
end
if status == 'running' and has_lease(holder) then
  return {'held'}
end
if field('cancel') or is_overdue() then
  finish('cancelled', '{}', result_ttl, events_ttl)
  return {'gone'}
end
if attempt >= most then
  redis.call('HSET', JOB, 'error', lost)
  finish('failed', '{"error":' .. lost .. '}', result_ttl, events_ttl)
  return {'gone'}
end
if attempt > 0 and attempt + 1 >= most and not is_alone then
  leave_line() -- it has had its turn
  redis.call('LREM', RQ_QUEUE, 0, id)
  redis.call('LPUSH', RQ_QUEUE, id)
  return {'solo'}
end

attempt = attempt + 1
if status == 'running' then
  redis.call('HINCRBY', TOTALS, 'retried', 1)
  count_retry('worker_lost')
  announce('retrying', cjson.encode({attempt = attempt, reason = 'worker_lost'}))
end
if not field('started') then
  observe('waited', now - tonumber(field('created') or now))
end
redis.call('HSET', JOB, 'status', 'running', 'token', token, 'worker', worker, 'attempt', attempt,
  'started', stamp(now), 'step', 0)
local span = field('span')
redis.call('HDEL', JOB, 'eta', 'span')
have_turn()
redis.call('ZREM', QUEUED, id)
redis.call('ZADD', RUNNING, now, id)
announce('started', cjson.encode({attempt = attempt, worker = worker}))
return claimed(span)
