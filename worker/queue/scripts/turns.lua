-- Whose turn it is: start-time fair queueing between the owners of jobs. RQ's list is kept in the
-- order in which jobs are to be taken; a job is put in at its turn, so taking one is what it always was.
-- Turns are in work of an owner of weight 1. An owner's next job begins where its last one ended, but
-- not before CLOCK, the turn up to which jobs were taken: who asks seldom comes next, whatever others
-- have waiting, and nobody saves up turns. A single owner's jobs keep the order they came in.
local WEIGHTS = {low = 0.25, normal = 1, high = 4} -- model/bench/fair_queue.py knows them too
local LEAST_COST = 0.01
local LOOK_AT = 50

local function line(owner)
  return 'kirazuri:line:' .. owner
end

local function clock()
  return tonumber(redis.call('GET', CLOCK) or 0)
end

local function cost()
  return math.max(tonumber(field('cost') or 0), LEAST_COST)
end

local function weight()
  return WEIGHTS[field('priority')] or 1
end

-- Put a job into RQ's list, behind all of its turn. One that was just taken out is no mark to go by.
local function put_in(job, turn)
  for _, later in ipairs(redis.call('ZRANGEBYSCORE', TURNS, '(' .. stamp(turn), '+inf',
      'LIMIT', 0, LOOK_AT)) do
    if redis.call('LINSERT', RQ_QUEUE, 'BEFORE', later, job) > 0 then
      return
    end
  end
  redis.call('RPUSH', RQ_QUEUE, job)
end

local function stand(job, turn, owner)
  redis.call('ZADD', TURNS, stamp(turn), job)
  redis.call('ZADD', line(owner), stamp(turn), job)
end

-- The weights of all owners that have jobs waiting.
local function all_weights()
  local sum = 0
  for _, one in pairs(WEIGHTS) do
    sum = sum + one * redis.call('ZCOUNT', LINES, one, one)
  end
  return sum
end

-- This job waits for a turn, which its owner pays for.
local function join_line()
  local owner = field('owner') or ''
  local turn = math.max(clock(), tonumber(redis.call('ZSCORE', SHARES, owner) or 0))
  redis.call('ZADD', SHARES, stamp(turn + cost() / weight()), owner)
  redis.call('ZADD', LINES, weight(), owner)
  put_in(id, turn)
  stand(id, turn, owner)
end

-- This job waits for no turn any more; which one it was, nil where it had had its turn.
local function leave_line()
  local turn, owner = redis.call('ZSCORE', TURNS, id), field('owner') or ''
  redis.call('ZREM', TURNS, id)
  redis.call('ZREM', line(owner), id)
  if redis.call('EXISTS', line(owner)) == 0 then
    redis.call('ZREM', LINES, owner)
  end
  return turn and tonumber(turn)
end

-- This job was taken. The clock also goes by the work that is done, at half the pace of what each
-- owner gets of it: so no turn, however late, is put off for ever by owners that are ever new.
local function have_turn()
  local weights = all_weights()
  local turn = leave_line()
  if turn then
    local aged = clock() + cost() / (2 * math.max(weights, WEIGHTS.low))
    turn = math.max(turn, aged)
    redis.call('SET', CLOCK, stamp(turn))
    redis.call('ZREMRANGEBYSCORE', SHARES, '-inf', stamp(turn))
  end
end

-- Put RQ's list into the order of turns. Jobs that had theirs before stay in front.
local function sort_list()
  local has_turn, is_listed, sorted = {}, {}, {}
  local turns, listed = redis.call('ZRANGE', TURNS, 0, -1), redis.call('LRANGE', RQ_QUEUE, 0, -1)
  for _, job in ipairs(turns) do
    has_turn[job] = true
  end
  for _, job in ipairs(listed) do
    is_listed[job] = true
    if not has_turn[job] then
      sorted[#sorted + 1] = job
    end
  end
  for _, job in ipairs(turns) do
    if is_listed[job] then
      sorted[#sorted + 1] = job
    end
  end
  redis.call('DEL', RQ_QUEUE)
  for first = 1, #sorted, 1000 do
    redis.call('RPUSH', RQ_QUEUE, unpack(sorted, first, math.min(first + 999, #sorted)))
  end
end

-- This job ends without its turn: its owner's later ones move up by what it would have taken.
local function give_up_turn()
  local turn = leave_line()
  if not turn then
    return
  end
  local owner, share = field('owner') or '', cost() / weight()
  local later = redis.call('ZRANGEBYSCORE', line(owner), '(' .. stamp(turn), '+inf', 'WITHSCORES')
  local now_served = clock()
  for index = 1, #later, 2 do
    local before = tonumber(later[index + 1])
    stand(later[index], math.min(before, math.max(now_served, before - share)), owner)
  end
  if #later > 0 and redis.call('ZCARD', LINES) > 1 then
    sort_list()
  end
  local ends = tonumber(redis.call('ZSCORE', SHARES, owner) or 0)
  if ends > 0 then
    redis.call('ZADD', SHARES, stamp(math.max(now_served, ends - share)), owner)
  end
end
