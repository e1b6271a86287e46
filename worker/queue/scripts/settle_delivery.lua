-- Records an attempt at a delivery in the job's log: it is done, waits for the next attempt, or is given up.
-- ARGV: job id, delivery id, token, outcome (delivered | retried | given_up | gone), delay of the
--       next attempt, log entry, maximum number of log entries
-- Returns settled | lost (another sender has the delivery, or it is over).
local delivery, token, outcome, delay = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local entry, log_length = cjson.decode(ARGV[6]), tonumber(ARGV[7])
local key = PREFIX.delivery .. delivery

if redis.call('EXISTS', key) == 0 then
  return 'lost'
end
-- A successful delivery counts even if another sender has taken it meanwhile.
if outcome ~= 'delivered' and redis.call('HGET', key, 'delivery_token') ~= token then
  return 'lost'
end
entry.at = now - entry.seconds
if outcome == 'retried' then
  entry.next_at = now + delay
  redis.call('HDEL', key, 'delivery_token')
  redis.call('HSET', key, 'delivery_attempt', entry.attempt)
  redis.call('ZADD', KEY.outbox, now + delay, delivery)
else
  redis.call('ZREM', KEY.outbox, delivery)
  redis.call('DEL', key)
end
count('webhook_' .. outcome)
if redis.call('EXISTS', KEY.job) == 1 then
  if outcome == 'gone' then
    redis.call('HSET', KEY.job, 'webhook_gone', 1)
  end
  local attempt = increase('HINCRBY', KEY.job, 'deliveries', 1)
  redis.call('HSET', KEY.job, 'delivery:' .. attempt, cjson.encode(entry))
  redis.call('HDEL', KEY.job, 'delivery:' .. (attempt - log_length))
end
return 'settled'
