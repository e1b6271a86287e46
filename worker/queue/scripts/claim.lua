-- A worker takes the next jobs from the queue, among them those of lost workers. Counts the attempts.
-- ARGV: '', worker, lists {card, checkpoint} of what it runs in JSON, its free places, places of one owner,
--       jobs here by owner in JSON, '1' if the worker has no job, lease in seconds, maximum attempts,
--       error of a lost job, result TTL, faults of the server for which it takes none,
--       a token for each free place...
-- Returns a list {token, job id, RQ's queue, '1' if the job must run alone, attempt, request...} for each job.
-- A repeat with the same tokens returns the same jobs.
local worker, checkpoints, places = ARGV[2], cjson.decode(ARGV[3]), tonumber(ARGV[4])
local places_of_owner, jobs_of, is_alone = tonumber(ARGV[5]), cjson.decode(ARGV[6]), ARGV[7] == '1'
local lease, max_attempts, lost_error, result_ttl = tonumber(ARGV[8]), tonumber(ARGV[9]), ARGV[10], tonumber(ARGV[11])
local refused_faults, FIRST_TOKEN = ARGV[12], 13
local claims, is_done = {}, false

-- `span` is the trace context of the previous attempt; the new span links to it.
local function add_claim(token, queue, must_be_alone, span)
  local claim = {token, id, queue, must_be_alone and '1' or ''}
  for _, value in ipairs(redis.call('HMGET', KEY.job, 'attempt', 'request', 'warnings', 'created', 'started',
      'owner', 'priority', 'traceparent', 'request_id')) do
    claim[#claim + 1] = value
  end
  claim[#claim + 1] = span
  claims[#claims + 1] = claim
end

local function is_runnable_here()
  local card, checkpoint = field('card') or '', field('checkpoint') or ''
  for _, own in ipairs(checkpoints) do
    if card == own[1] and checkpoint == own[2] then
      return true
    end
  end
  return false
end

-- A job whose workers were lost may have killed them. It has its last attempt alone in an engine: one worker
-- at a time takes no more jobs until it is free, and the others pass the job over.
local function is_suspect(status, attempt)
  return attempt > 0 and attempt + 1 >= max_attempts and (status == 'running' or field('lost'))
end

local function reserve_solo_turn()
  local holder = redis.call('GET', KEY.solo_turn)
  if not holder or holder == worker then
    redis.call('SET', KEY.solo_turn, worker, 'EX', math.ceil(lease))
    is_done = true
  end
end

local function claim(queue, status, attempt, must_be_alone)
  local token, owner = ARGV[FIRST_TOKEN + #claims], owner_of_job()
  attempt = attempt + 1
  if status == 'running' then
    increase('HINCRBY', KEY.job, 'lost', 1)
    count('retried')
    count_retry('worker_lost')
    publish_event('retrying', cjson.encode({attempt = attempt, reason = 'worker_lost'}))
  end
  if not field('started') then
    observe('waited', now - (number('created') or now))
  end
  redis.call('HSET', KEY.job, 'status', 'running', 'token', token, 'worker', worker, 'attempt', attempt,
    'started', stamp(now), 'step', 0)
  local span = field('span')
  redis.call('HDEL', KEY.job, 'eta', 'span')
  serve_turn()
  redis.call('ZREM', KEY.queued, id)
  redis.call('ZADD', KEY.running, now, id)
  redis.call('ZADD', KEY.rq_leases, now + lease, id .. RQ.separator .. token)
  redis.call('HSET', KEY.rq_job, 'status', 'started', 'worker_name', worker)
  redis.call('SET', PREFIX.claimed .. token, id, 'EX', 60)
  publish_event('started', cjson.encode({attempt = attempt, worker = worker}))
  add_claim(token, queue, must_be_alone, span)
  jobs_of[owner] = (jobs_of[owner] or 0) + 1
  if must_be_alone then
    is_done = true
  end
end

-- Claims this job, ends it if it is over, or passes it over. Returns whether the job has left the queue.
local function look_at(queue)
  local status, attempt = field('status'), (number('attempt') or 0)
  if not status or is_terminal(status) then
    redis.call('DEL', KEY.rq_job)
    return true
  end
  if status == 'running' and has_lease(field('token')) then
    return true
  end
  if field('cancel') or is_overdue() then
    finish('cancelled', '{}', result_ttl)
    return true
  end
  if attempt >= max_attempts then
    redis.call('HSET', KEY.job, 'error', lost_error)
    finish('failed', '{"error":' .. lost_error .. '}', result_ttl)
    return true
  end
  if not is_runnable_here() or (jobs_of[owner_of_job()] or 0) >= places_of_owner then
    return false
  end
  local must_be_alone = is_suspect(status, attempt)
  if must_be_alone and not (is_alone and #claims == 0) then
    reserve_solo_turn()
    return false
  end
  claim(queue, status, attempt, must_be_alone)
  return true
end

local function is_full()
  return is_done or #claims >= places
end

-- Jobs that go before all others, and those of older releases.
local function take_from_front(queue)
  use_queue(queue)
  for _, job in ipairs(redis.call('LRANGE', KEY.rq_list, 0, FRONT - 1)) do
    if is_full() then
      return
    end
    use_job(job, queue)
    -- A worker of an older release puts jobs there that wait in a line; they keep their turn.
    if is_in_line() or look_at(queue) then
      redis.call('LREM', RQ.list .. queue, 1, job)
    end
  end
end

-- The owner whose turn is next among those that have room here, and the turn; nil if none waits.
local function next_owner()
  local full = 0
  for _, count in pairs(jobs_of) do
    full = count >= places_of_owner and full + 1 or full
  end
  local waiting = redis.call('ZRANGE', KEY.turns, 0, full, 'WITHSCORES')
  for index = 1, #waiting, 2 do
    if (jobs_of[waiting[index]] or 0) < places_of_owner then
      return waiting[index], tonumber(waiting[index + 1])
    end
  end
end

-- Points KEY to the lines of the next owner of all that this worker may run; returns the owner.
local function use_next_lines(queue)
  local best, owner, least
  for _, own in ipairs(checkpoints) do
    use_queue(queue, own[1], own[2])
    local candidate, turn = next_owner()
    if candidate and (not least or turn < least) then
      best, owner, least = own, candidate, turn
    end
  end
  if best then
    use_queue(queue, best[1], best[2])
  end
  return owner
end

local function take_from_lines(queue)
  while not is_full() do
    local owner = use_next_lines(queue)
    if not owner then
      return
    end
    local line, turns = line_of(owner), KEY.turns
    local job = redis.call('ZRANGE', line, 0, 0)[1] or ''
    use_job(job, queue)
    if not look_at(queue) then
      serve_turn() -- it waits for its solo turn in front of the others
      redis.call('RPUSH', KEY.rq_list, job)
    end
    redis.call('ZREM', line, job) -- an id without a record
    if redis.call('EXISTS', line) == 0 then
      redis.call('ZREM', turns, owner)
    end
  end
end

local function is_any_waiting()
  for _, queue in ipairs(QUEUES_OLDEST_FIRST) do
    if redis.call('LLEN', RQ.list .. queue) > 0 then
      return true
    end
  end
  return redis.call('ZCARD', KEY.queued) > 0
end

local claimed = {}
for index = FIRST_TOKEN, #ARGV do
  claimed[#claimed + 1] = PREFIX.claimed .. ARGV[index]
end
for index, job in ipairs(redis.call('MGET', unpack(claimed))) do
  if job then
    local token = ARGV[FIRST_TOKEN + index - 1]
    use_job(job, QUEUES_OLDEST_FIRST[#QUEUES_OLDEST_FIRST])
    if field('status') == 'running' and field('token') == token then
      redis.call('ZADD', KEY.rq_leases, now + lease, id .. RQ.separator .. token)
      add_claim(token, string.sub(KEY.rq_list, #RQ.list + 1),
        is_suspect('', (number('attempt') or 0) - 1), false)
    end
  end
end
if #claims > 0 or not is_any_waiting() or fault_among(refused_faults) then
  return claims
end
for _, queue in ipairs(QUEUES_OLDEST_FIRST) do
  take_from_front(queue)
  take_from_lines(queue)
end
return claims
