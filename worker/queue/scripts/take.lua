-- A sender takes deliveries that are due. They are its own until the lease is over, then due again.
-- ARGV: '', token, lease, most, most of one host, JSON of hosts -> what the sender has in flight
-- Answers {delivery id, its fields}...
local token, lease, most = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local per_host, busy = tonumber(ARGV[5]), cjson.decode(ARGV[6])
local LOOK_AT = 1000

local taken, skipped = {}, {}
local due = redis.call('ZRANGEBYSCORE', OUTBOX, '-inf', now, 'LIMIT', 0, LOOK_AT)
for _, delivery in ipairs(due) do
  if #taken >= most then
    break
  end
  local key = delivery_key(delivery)
  local host = redis.call('HGET', key, 'webhook_host')
  if not host then
    redis.call('ZREM', OUTBOX, delivery) -- kept too long without a sender
  elseif (busy[host] or 0) >= per_host then
    skipped[#skipped + 1] = delivery
  else
    busy[host] = (busy[host] or 0) + 1
    redis.call('HSET', key, 'delivery_token', token)
    redis.call('ZADD', OUTBOX, now + lease, delivery)
    taken[#taken + 1] = {delivery, redis.call('HGETALL', key)}
  end
end
-- A slow receiver does not hold up the others: where its backlog fills the view, it goes behind.
if #due == LOOK_AT and #taken < most then
  for _, delivery in ipairs(skipped) do
    redis.call('ZADD', OUTBOX, now, delivery)
  end
end
return taken
