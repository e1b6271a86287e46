-- Where a job of an owner would stand if it were admitted now; changes nothing.
-- ARGV: '', owner
-- Answers {jobs before it, jobs that run, mean work of a job or nil}.
local turn = math.max(clock(), tonumber(redis.call('ZSCORE', SHARES, ARGV[2]) or 0))
local later = redis.call('ZCOUNT', TURNS, '(' .. stamp(turn), '+inf')
return {redis.call('ZCARD', QUEUED) - later, redis.call('ZCARD', RUNNING), redis.call('GET', PACE)}
