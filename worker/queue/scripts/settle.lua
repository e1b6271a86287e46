-- An attempt at a delivery is over: it is done, waits for the next, or is given up; the job's log
-- tells of it.
-- ARGV: job id, delivery id, token, outcome (delivered | retried | given_up | gone), delay of the
--       next attempt, log entry, how many entries are kept
-- Answers settled | lost (the delivery is another sender's by now, or over).
local delivery, token, outcome, delay = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local entry, kept = cjson.decode(ARGV[6]), tonumber(ARGV[7])
local key = delivery_key(delivery)

if redis.call('EXISTS', key) == 0 then
  return 'lost'
end
-- Once the receiver has it, it has it, whoever else is about to send it again.
if outcome ~= 'delivered' and redis.call('HGET', key, 'delivery_token') ~= token then
  return 'lost'
end
entry.at = now - entry.seconds
if outcome == 'retried' then
  entry.next_at = now + delay
  redis.call('HDEL', key, 'delivery_token')
  redis.call('HSET', key, 'delivery_attempt', entry.attempt)
  redis.call('ZADD', OUTBOX, now + delay, delivery)
else
  redis.call('ZREM', OUTBOX, delivery)
  redis.call('DEL', key)
end
redis.call('HINCRBY', TOTALS, 'webhook_' .. outcome, 1)
if redis.call('EXISTS', JOB) == 1 then
  if outcome == 'gone' then
    redis.call('HSET', JOB, 'webhook_gone', 1)
  end
  local number = redis.call('HINCRBY', JOB, 'deliveries', 1)
  redis.call('HSET', JOB, 'delivery:' .. number, cjson.encode(entry))
  redis.call('HDEL', JOB, 'delivery:' .. (number - kept))
end
return 'settled'
