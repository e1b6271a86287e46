-- A call that waited for a job has ended: with its answer, or without it, so that a call like it finds the job.
-- ARGV: id, name of the key of calls like it, `process call` of the call, '1' if it had its answer, TTL of the key
-- Returns the number of changes. A job whose answer another call had, or waits for now, stays as it is.
local calls, holder, is_served, ttl = ARGV[2], ARGV[3], ARGV[4] == '1', tonumber(ARGV[5])

if is_served then
  return redis.call('HDEL', calls, id)
end
if redis.call('HGET', calls, id) ~= holder then
  return 0
end
redis.call('HSET', calls, id, '')
return redis.call('EXPIRE', calls, ttl)
