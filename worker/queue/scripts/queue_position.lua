-- Tells where a new job of an owner would stand. Changes nothing.
-- ARGV: '', owner, card, checkpoint
-- Returns {jobs before it, running jobs, mean work of a job or nil}.
use_queue(QUEUES_OLDEST_FIRST[#QUEUES_OLDEST_FIRST], ARGV[3], ARGV[4])
local later = redis.call('ZCOUNT', KEY.slots, '(' .. stamp(expected_turn(ARGV[2])), '+inf')
return {redis.call('ZCARD', KEY.queued) - later, redis.call('ZCARD', KEY.running),
  redis.call('GET', KEY.mean_cost)}
