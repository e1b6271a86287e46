-- Ends a removal that `begin_removal` began.
-- ARGV: '', seconds for which removals stay on record, seconds until the next try,
--       number of images whose bytes may be deleted, their names..., names to be tried again...
local ttl, pause, touched = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
for index = 5, 4 + touched do
  redis.call('ZADD', KEY.removals, 'XX', now, ARGV[index])
end
for index = 5 + touched, #ARGV do
  local removed = redis.call('ZSCORE', KEY.removals, ARGV[index])
  if removed and tonumber(removed) > REMOVING then
    redis.call('ZREM', KEY.removals, ARGV[index])
  end
  redis.call('ZADD', KEY.images, 'NX', now + pause, ARGV[index])
end
redis.call('ZREMRANGEBYSCORE', KEY.removals, 0, now - ttl)
return 'ok'
