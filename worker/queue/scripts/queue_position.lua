-- Tells where a new job of an owner would stand. Changes nothing.
-- ARGV: '', owner
-- Returns {jobs before it, running jobs, mean work of a job or nil}.
local turn = math.max(virtual_time(), tonumber(redis.call('ZSCORE', KEY.next_turns, ARGV[2]) or 0))
local later = redis.call('ZCOUNT', KEY.turns, '(' .. stamp(turn), '+inf')
return {redis.call('ZCARD', KEY.queued) - later, redis.call('ZCARD', KEY.running),
  redis.call('GET', KEY.mean_cost)}
