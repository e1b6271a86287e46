-- The end of what `sweep` began.
-- ARGV: '', seconds for which removals are remembered, seconds until the next try,
--       number of pictures whose bytes may be gone, their names..., names to be tried again...
local ttl, pause, touched = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
for index = 5, 4 + touched do
  redis.call('ZADD', REMOVALS, 'XX', now, ARGV[index])
end
for index = 5 + touched, #ARGV do
  local begun = redis.call('ZSCORE', REMOVALS, ARGV[index])
  if begun and tonumber(begun) > UNDER_WAY then
    redis.call('ZREM', REMOVALS, ARGV[index])
  end
  redis.call('ZADD', IMAGES, 'NX', now + pause, ARGV[index])
end
redis.call('ZREMRANGEBYSCORE', REMOVALS, 0, now - ttl)
return 'ok'
