-- A worker whose places for some owners are all taken asks for the next job of another owner.
-- ARGV: '', owners...
-- Answers the job's id, which is out of the list as if popped, or false.
local full = {}
for index = 2, #ARGV do
  full[ARGV[index]] = true
end

local picked, least
-- Those that had their turn before lie in front and have none.
for _, job in ipairs(redis.call('LRANGE', RQ_QUEUE, 0, LOOK_AT - 1)) do
  if redis.call('ZSCORE', TURNS, job) then
    break
  end
  if not full[redis.call('HGET', 'kirazuri:job:' .. job, 'owner') or ''] then
    picked = job
    break
  end
end
if not picked then
  for _, owner in ipairs(redis.call('ZRANGE', LINES, 0, -1)) do
    local first = not full[owner] and redis.call('ZRANGE', line(owner), 0, 0, 'WITHSCORES')
    if first and first[1] and (not least or tonumber(first[2]) < least) then
      picked, least = first[1], tonumber(first[2])
    end
  end
end
if picked and redis.call('LREM', RQ_QUEUE, 1, picked) == 1 then
  redis.call('RPUSH', RQ_TAKEN, picked)
  return picked
end
return false
