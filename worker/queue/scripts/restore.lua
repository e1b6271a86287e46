-- Puts a job that RQ lost (lost writes, a failover) to the front of the queue: it has had its turn, or has
-- waited for long.
-- ARGV: id, RQ field/value...
-- Returns restored | fine.
local status = field('status')
if not status or is_terminal(status) or is_in_line() or is_known_to_rq() then
  return 'fine'
end
redis.call('DEL', KEY.rq_job)
redis.call('HSET', KEY.rq_job, unpack(ARGV, 2))
redis.call('SADD', KEY.rq_queues, KEY.rq_list)
redis.call('RPUSH', KEY.rq_list, id)
return 'restored'
