-- Takes the next job out of the queue for a worker that has no room for jobs of some owners.
-- ARGV: '', faults of the server for which it takes none, those owners...
-- Returns {RQ's list, id}, or false. The id is in RQ's intermediate list, as if RQ had popped it.
local full = {}
for index = 3, #ARGV do
  full[ARGV[index]] = true
end

if fault_among(ARGV[2]) or not use_next_job(full) then
  return false
end
redis.call('LREM', KEY.rq_list, 1, id)
serve_turn()
redis.call('RPUSH', KEY.rq_intermediate, id)
return {KEY.rq_list, id}
