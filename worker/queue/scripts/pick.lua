-- Pops the next job for a worker that has no room for jobs of some owners.
-- ARGV: '', those owners...
-- Returns the job's id, or false. The id leaves the list as if RQ had popped it.
local full = {}
for index = 2, #ARGV do
  full[ARGV[index]] = true
end

local picked, least
-- Jobs in front of the list that have had their turn come first.
for _, job in ipairs(redis.call('LRANGE', KEY.rq_list, 0, LOOK_AT - 1)) do
  if redis.call('ZSCORE', KEY.turns, job) then
    break
  end
  if not full[redis.call('HGET', PREFIX.job .. job, 'owner') or ''] then
    picked = job
    break
  end
end
if not picked then
  for _, owner in ipairs(redis.call('ZRANGE', KEY.waiting_owners, 0, -1)) do
    local first = not full[owner] and redis.call('ZRANGE', turns_of(owner), 0, 0, 'WITHSCORES')
    if first and first[1] and (not least or tonumber(first[2]) < least) then
      picked, least = first[1], tonumber(first[2])
    end
  end
end
if picked and redis.call('LREM', KEY.rq_list, 1, picked) == 1 then
  redis.call('RPUSH', KEY.rq_intermediate, picked)
  return picked
end
return false
