-- Repairs what lost workers and lost writes left behind: returns jobs to the queue, ends overdue ones, forgets
-- dead workers. `sent` is the worker's time when it sent this call: a Redis that stood still runs old calls
-- before the workers can renew their leases, and such a call must not find them expired.
-- ARGV: '', sent, lease in seconds, seconds after which a queued job that is nowhere is put back,
--       score of the last queued job that was looked at, result TTL, field/value... of RQ's hash of a job
-- Returns {score of the last queued job looked at, ids of restored jobs, ids of overdue jobs}.
local sent, lease, patience = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local looked_at, result_ttl, restored, overdue = ARGV[5], tonumber(ARGV[6]), {}, {}
local FIRST_FIELD, AT_ONCE = 7, 500

local function is_unfinished()
  local status = field('status')
  return status and not is_terminal(status)
end

-- Puts this job in front of the queue: it has had its turn, or has waited for long.
local function put_back()
  redis.call('LREM', KEY.rq_list, 0, id)
  redis.call('LPUSH', KEY.rq_list, id)
  redis.call('HSET', KEY.rq_job, 'status', 'queued')
end

-- Jobs whose lease has expired, the first one to be in front.
local function return_lost_jobs(queue)
  local leases = RQ.leases .. queue
  for _, member in ipairs(redis.call('ZREVRANGEBYSCORE', leases, sent, '-inf')) do
    local job, token = string.match(member, '^(.-)' .. RQ.separator .. '(.*)$')
    redis.call('ZREM', leases, member)
    use_job(job or member, queue)
    if field('status') == 'running' and field('token') == token then
      put_back()
    end
  end
end

-- Jobs that a worker of an older release took out of the list and did not claim.
local function return_popped_jobs(queue)
  local popped = RQ.list .. queue .. RQ.intermediate
  for _, job in ipairs(redis.call('LRANGE', popped, 0, -1)) do
    local seen = popped .. RQ.first_seen .. job
    redis.call('SET', seen, sent, 'NX', 'EX', 86400)
    if sent - (finite(redis.call('GET', seen)) or 0) > lease then
      redis.call('LREM', popped, 0, job)
      redis.call('DEL', seen)
      use_job(job, queue)
      if is_unfinished() and not has_lease(field('token')) then
        put_back()
      end
    end
  end
end

local function restore(job)
  use_job(job, RQ.first_queue)
  if has_lease(field('token')) then
    return
  end
  local is_readable = false
  for _, queue in ipairs(QUEUES_OLDEST_FIRST) do
    is_readable = is_readable or KEY.rq_list == RQ.list .. queue
  end
  if is_readable and is_unfinished() and not is_in_line() and not is_known_to_rq() then
    redis.call('DEL', KEY.rq_job)
    redis.call('HSET', KEY.rq_job, unpack(ARGV, FIRST_FIELD))
    redis.call('HSET', KEY.rq_job, 'origin', string.sub(KEY.rq_list, #RQ.list + 1))
    redis.call('SADD', KEY.rq_queues, KEY.rq_list)
    redis.call('RPUSH', KEY.rq_list, id)
    restored[#restored + 1] = id
  end
end

-- Looks at all running jobs, and at some of those that have waited for long; the next call looks further.
local function restore_missing_jobs()
  for _, job in ipairs(redis.call('ZRANGE', KEY.running, 0, -1)) do
    restore(job)
  end
  local waiting = redis.call('ZRANGEBYSCORE', KEY.queued, '(' .. looked_at, now - patience, 'WITHSCORES',
    'LIMIT', 0, AT_ONCE)
  looked_at = #waiting == 2 * AT_ONCE and waiting[#waiting] or '0'
  for index = 1, #waiting, 2 do
    restore(waiting[index])
  end
end

-- The worker that holds an overdue job ends it.
local function cancel_overdue_jobs()
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', KEY.deadlines, 0, now, 'LIMIT', 0, 100)) do
    use_job(job, RQ.first_queue)
    if not is_unfinished() then
      redis.call('ZREM', KEY.deadlines, job)
    else
      local is_new = redis.call('HSETNX', KEY.job, 'cancel', DEADLINE_NONCE) == 1
      if field('status') == 'queued' or not has_lease(field('token')) then
        finish('cancelled', '{}', result_ttl)
        is_new = true
      end
      if is_new then
        overdue[#overdue + 1] = job
      end
    end
  end
end

-- `names` holds names or keys of workers; a live one has the key `prefix` .. name.
local function forget_dead_workers(names, prefix)
  for _, name in ipairs(redis.call('SMEMBERS', names)) do
    if redis.call('EXISTS', prefix .. name) == 0 then
      redis.call('SREM', names, name)
    end
  end
end

for _, queue in ipairs(QUEUES_OLDEST_FIRST) do
  return_lost_jobs(queue)
  return_popped_jobs(queue)
  forget_dead_workers(RQ.workers_of .. queue, '')
end
restore_missing_jobs()
cancel_overdue_jobs()
forget_dead_workers(RQ.workers, '')
forget_dead_workers(KEY.workers, PREFIX.worker)
return {looked_at, restored, overdue}
