-- A webhook sender takes deliveries that are due. They are leased to it, and due again when the lease ends.
-- ARGV: '', token, lease, maximum, maximum per host, JSON of host -> deliveries that the sender has in flight
-- Returns {delivery id, its fields}...
local token, lease, most = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local per_host, in_flight = tonumber(ARGV[5]), cjson.decode(ARGV[6])
local LOOK_AT = 1000

local taken, skipped = {}, {}
local due = redis.call('ZRANGEBYSCORE', KEY.outbox, '-inf', now, 'LIMIT', 0, LOOK_AT)
for _, delivery in ipairs(due) do
  if #taken >= most then
    break
  end
  local key = PREFIX.delivery .. delivery
  local host = redis.call('HGET', key, 'webhook_host')
  if not host then
    redis.call('ZREM', KEY.outbox, delivery) -- expired before a sender took it
  elseif (in_flight[host] or 0) >= per_host then
    skipped[#skipped + 1] = delivery
  else
    in_flight[host] = (in_flight[host] or 0) + 1
    redis.call('HSET', key, 'delivery_token', token)
    redis.call('ZADD', KEY.outbox, now + lease, delivery)
    taken[#taken + 1] = {delivery, redis.call('HGETALL', key)}
  end
end
-- If the backlog of slow hosts fills the view, it moves behind the deliveries of other hosts.
if #due == LOOK_AT and #taken < most then
  for _, delivery in ipairs(skipped) do
    redis.call('ZADD', KEY.outbox, now, delivery)
  end
end
return taken
