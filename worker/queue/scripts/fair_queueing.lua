-- Start-time fair queueing between the owners of jobs. Each owner's jobs wait in a line, and the owner whose
-- first job has the earliest turn comes next. No step costs more than the logarithm of the waiting jobs.
--
-- A turn is a virtual time, in work of an owner of weight 1. An owner's next job starts at the end of its
-- last one; the first job of an empty line, not before the virtual time of the queue. So an owner with few
-- jobs comes next, however many jobs the others have, and nobody saves up turns.
--
-- Jobs that go before all others stand in RQ's list: those of lost workers, which RQ itself puts there, and
-- those that were returned unfinished. Jobs that an older release queued are there too.
local LEAST_COST = 0.01
local FRONT = 500 -- how many jobs of RQ's list a call looks at

local function owner_of_job()
  return field('owner') or ''
end

local function line_of(owner)
  return KEY.line .. owner
end

local function virtual_time()
  return finite(redis.call('GET', KEY.virtual_time)) or 0
end

local function cost()
  return math.max(number('cost') or 0, LEAST_COST)
end

local function weight()
  return WEIGHTS[field('priority')] or WEIGHTS.normal
end

-- The turn that an owner's next job may expect. Owners with the same turn keep the order of arrival.
local function expected_turn(owner)
  local turn = math.max(virtual_time(), tonumber(redis.call('ZSCORE', KEY.next_turns, owner) or 0))
  if not redis.call('ZSCORE', KEY.turns, owner) then
    turn = turn + 0.000001 * redis.call('ZCARD', KEY.turns)
  end
  return turn
end

-- A line has as many slots as jobs; a slot's score is a turn. The first job of the line has the first slot,
-- and so on. A job that leaves the line takes one slot away, so the later jobs move up without being
-- changed. Slots only tell positions: the turns of jobs of different cost may differ from them.
local function slot_of(owner, place)
  return string.format('%s:%09d', owner, place)
end

local function first_slot(owner)
  return finite(redis.call('HGET', KEY.first_slots, owner)) or 0
end

-- Puts this job at the end of its owner's line.
local function join_queue()
  local owner = owner_of_job()
  local line, turn = line_of(owner), expected_turn(owner)
  local length, place = redis.call('ZCARD', line), 1
  if length == 0 then
    redis.call('ZADD', KEY.turns, stamp(turn), owner)
    redis.call('HSET', KEY.first_slots, owner, 0)
    redis.call('SADD', KEY.checkpoints, (field('card') or '') .. ':' .. (field('checkpoint') or ''))
  else
    place = redis.call('ZREVRANGE', line, 0, 0, 'WITHSCORES')[2] + 1
  end
  redis.call('ZADD', line, place, id)
  redis.call('ZADD', KEY.slots, stamp(turn), slot_of(owner, first_slot(owner) + length))
  redis.call('ZADD', KEY.next_turns, stamp(turn + cost() / weight()), owner)
  redis.call('ZADD', KEY.weights, weight(), owner)
end

-- A job that an older release queued has a turn in other keys.
local function forget_old_turn(owner)
  if redis.call('ZREM', KEY.old_turns, id) == 1 then
    redis.call('ZREM', PREFIX.old_line .. owner, id)
    if redis.call('EXISTS', PREFIX.old_line .. owner) == 0 then
      redis.call('ZREM', KEY.old_lines, owner)
    end
  end
end

-- Removes this job from its owner's line. Returns the turn of the line, or nil if the job is in none. Its
-- owner pays for a job that is served; one that is not gives its turn to the next jobs.
local function leave_line(is_served)
  local owner = owner_of_job()
  if redis.call('ZREM', line_of(owner), id) == 0 then
    forget_old_turn(owner)
    return nil
  end
  local turn, share = tonumber(redis.call('ZSCORE', KEY.turns, owner)), cost() / weight()
  local left, first = redis.call('ZCARD', line_of(owner)), first_slot(owner)
  local next_turn = is_served and turn + share or turn
  redis.call('ZREM', KEY.slots, slot_of(owner, is_served and first or first + left))
  if left == 0 then
    redis.call('ZREM', KEY.turns, owner)
    redis.call('ZREM', KEY.weights, owner)
    redis.call('HDEL', KEY.first_slots, owner)
    redis.call('ZADD', KEY.next_turns, stamp(next_turn), owner)
  elseif is_served then
    redis.call('ZADD', KEY.turns, stamp(next_turn), owner)
    redis.call('HSET', KEY.first_slots, owner, first + 1)
  else
    redis.call('ZADD', KEY.next_turns, stamp(math.max(virtual_time(), expected_turn(owner) - share)), owner)
  end
  return turn
end

-- The weights of all owners with waiting jobs.
local function total_weight()
  local sum = 0
  for _, one in pairs(WEIGHTS) do
    sum = sum + one * redis.call('ZCOUNT', KEY.weights, one, one)
  end
  return sum
end

-- This job was taken. Virtual time also advances with the work that is done, at half the pace of what
-- each owner gets. So a stream of new owners cannot starve a job with a late turn.
local function serve_turn()
  local weights = total_weight()
  local turn = leave_line(true)
  if turn then
    local aged = virtual_time() + cost() / (2 * math.max(weights, WEIGHTS.low))
    turn = math.max(turn, aged)
    redis.call('SET', KEY.virtual_time, stamp(turn))
    redis.call('ZREMRANGEBYSCORE', KEY.next_turns, '-inf', stamp(turn))
  end
end

-- This job ends without its turn.
local function give_up_turn()
  leave_line(false)
end

-- Whether this job is in its owner's line.
local function is_in_line()
  return redis.call('ZSCORE', line_of(owner_of_job()), id)
end

-- Whether RQ knows this job: it returned the job to the queue, a worker of an older release is about to claim
-- it, or a worker has a lease.
local function is_known_to_rq()
  if redis.call('LPOS', KEY.rq_list, id) or redis.call('LPOS', KEY.rq_intermediate, id) then
    return true
  end
  local member = id .. RQ.separator
  for _, entry in ipairs(redis.call('ZRANGE', KEY.rq_leases, 0, -1)) do
    if string.sub(entry, 1, #member) == member then
      return true -- also if it has expired: RQ's own cleanup is about to return the job
    end
  end
  return false
end

-- How many jobs will be taken before this queued one.
local function queue_position()
  local owner = owner_of_job()
  local rank = redis.call('ZRANK', line_of(owner), id)
  if not rank then
    return redis.call('LPOS', KEY.rq_list, id) or 0
  end
  return redis.call('LLEN', KEY.rq_list) + redis.call('ZRANK', KEY.slots, slot_of(owner, first_slot(owner) + rank))
end
