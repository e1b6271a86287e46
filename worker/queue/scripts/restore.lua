-- Put a job that fell out of RQ (lost writes, a failover) back into its queue.
-- ARGV: id, RQ field/value...
-- Answers restored | fine.
local status = field('status')
if not status or is_terminal(status) then
  return 'fine'
end
if redis.call('LPOS', RQ_QUEUE, id) or redis.call('LPOS', RQ_TAKEN, id) then
  return 'fine'
end
for _, member in ipairs(redis.call('ZRANGE', RQ_LEASES, 0, -1)) do
  if string.sub(member, 1, #id + 1) == id .. ':' then
    return 'fine' -- somebody holds it, or RQ's own cleanup is about to hand it on
  end
end
redis.call('DEL', RQ_JOB)
redis.call('HSET', RQ_JOB, unpack(ARGV, 2))
redis.call('SADD', 'rq:queues', RQ_QUEUE)
local turn = tonumber(redis.call('ZSCORE', TURNS, id) or clock())
put_in(id, turn)
return 'restored'
