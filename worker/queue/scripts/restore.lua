-- Puts a job that RQ lost (lost writes, a failover) back into its list.
-- ARGV: id, RQ field/value...
-- Returns restored | fine.
local status = field('status')
if not status or is_terminal(status) then
  return 'fine'
end
if redis.call('LPOS', KEY.rq_list, id) or redis.call('LPOS', KEY.rq_intermediate, id) then
  return 'fine'
end
local member = id .. RQ.separator
for _, lease in ipairs(redis.call('ZRANGE', KEY.rq_leases, 0, -1)) do
  if string.sub(lease, 1, #member) == member then
    return 'fine' -- a worker holds it, or RQ's own cleanup is about to queue it again
  end
end
redis.call('DEL', KEY.rq_job)
redis.call('HSET', KEY.rq_job, unpack(ARGV, 2))
redis.call('SADD', KEY.rq_queues, KEY.rq_list)
local turn = tonumber(redis.call('ZSCORE', KEY.turns, id) or virtual_time())
insert_at_turn(id, turn)
return 'restored'
