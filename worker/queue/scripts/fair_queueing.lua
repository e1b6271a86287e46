-- Start-time fair queueing between the owners of jobs. RQ's list is kept in the order in which jobs are
-- taken: a new job is inserted at its turn, so workers pop from the list as usual.
-- A turn is a virtual time, in work of an owner of weight 1. An owner's next job starts at the end of its
-- last one, but not before the virtual time of the queue. So an owner with few jobs comes next, however
-- many jobs the others have, and nobody saves up turns. Jobs of a single owner keep their order.
local LEAST_COST = 0.01
local LOOK_AT = 50

local function turns_of(owner)
  return PREFIX.owner_turns .. owner
end

local function virtual_time()
  return tonumber(redis.call('GET', KEY.virtual_time) or 0)
end

local function cost()
  return math.max(tonumber(field('cost') or 0), LEAST_COST)
end

local function weight()
  return WEIGHTS[field('priority')] or WEIGHTS.normal
end

-- Inserts a job into RQ's list, behind all jobs of the same turn. A later job that was just popped is no
-- longer in the list; the one after it is tried.
local function insert_at_turn(job, turn)
  for _, later in ipairs(redis.call('ZRANGEBYSCORE', KEY.turns, '(' .. stamp(turn), '+inf',
      'LIMIT', 0, LOOK_AT)) do
    if redis.call('LINSERT', KEY.rq_list, 'BEFORE', later, job) > 0 then
      return
    end
  end
  redis.call('RPUSH', KEY.rq_list, job)
end

local function set_turn(job, turn, owner)
  redis.call('ZADD', KEY.turns, stamp(turn), job)
  redis.call('ZADD', turns_of(owner), stamp(turn), job)
end

-- The weights of all owners with waiting jobs.
local function total_weight()
  local sum = 0
  for _, one in pairs(WEIGHTS) do
    sum = sum + one * redis.call('ZCOUNT', KEY.waiting_owners, one, one)
  end
  return sum
end

-- Gives this job a turn and charges its owner for it.
local function join_queue()
  local owner = field('owner') or ''
  local turn = math.max(virtual_time(), tonumber(redis.call('ZSCORE', KEY.next_turns, owner) or 0))
  redis.call('ZADD', KEY.next_turns, stamp(turn + cost() / weight()), owner)
  redis.call('ZADD', KEY.waiting_owners, weight(), owner)
  insert_at_turn(id, turn)
  set_turn(id, turn, owner)
end

-- Removes this job's turn and returns it; nil if the job has had its turn.
local function remove_turn()
  local turn, owner = redis.call('ZSCORE', KEY.turns, id), field('owner') or ''
  redis.call('ZREM', KEY.turns, id)
  redis.call('ZREM', turns_of(owner), id)
  if redis.call('EXISTS', turns_of(owner)) == 0 then
    redis.call('ZREM', KEY.waiting_owners, owner)
  end
  return turn and tonumber(turn)
end

-- This job was taken. Virtual time also advances with the work that is done, at half the pace of what
-- each owner gets. So a stream of new owners cannot starve a job with a late turn.
local function serve_turn()
  local weights = total_weight()
  local turn = remove_turn()
  if turn then
    local aged = virtual_time() + cost() / (2 * math.max(weights, WEIGHTS.low))
    turn = math.max(turn, aged)
    redis.call('SET', KEY.virtual_time, stamp(turn))
    redis.call('ZREMRANGEBYSCORE', KEY.next_turns, '-inf', stamp(turn))
  end
end

-- Sorts RQ's list by turns. Jobs that have had their turn stay in front.
local function sort_list()
  local has_turn, is_listed, sorted = {}, {}, {}
  local turns, listed = redis.call('ZRANGE', KEY.turns, 0, -1), redis.call('LRANGE', KEY.rq_list, 0, -1)
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
  redis.call('DEL', KEY.rq_list)
  for first = 1, #sorted, 1000 do
    redis.call('RPUSH', KEY.rq_list, unpack(sorted, first, math.min(first + 999, #sorted)))
  end
end

-- This job ends without its turn: the later jobs of its owner move up by its share.
local function give_up_turn()
  local turn = remove_turn()
  if not turn then
    return
  end
  local owner, share = field('owner') or '', cost() / weight()
  local later = redis.call('ZRANGEBYSCORE', turns_of(owner), '(' .. stamp(turn), '+inf', 'WITHSCORES')
  local earliest = virtual_time()
  for index = 1, #later, 2 do
    local before = tonumber(later[index + 1])
    set_turn(later[index], math.min(before, math.max(earliest, before - share)), owner)
  end
  if #later > 0 and redis.call('ZCARD', KEY.waiting_owners) > 1 then
    sort_list()
  end
  local next_turn = tonumber(redis.call('ZSCORE', KEY.next_turns, owner) or 0)
  if next_turn > 0 then
    redis.call('ZADD', KEY.next_turns, stamp(math.max(earliest, next_turn - share)), owner)
  end
end
