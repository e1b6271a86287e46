-- The holder reports and learns: news out, cancel flag in.
-- ARGV: id, token, event ('' for none), its data, image name ('' for none), result ttl,
--       record field/value...
-- Answers ok | cancel (a client asked for it) | lost (the job is no longer this worker's).
local token, event, data, image = ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if field('status') ~= 'running' or field('token') ~= token then
  return 'lost'
end
if #ARGV > 6 then
  redis.call('HSET', JOB, unpack(ARGV, 7))
end
local is_new = true
if image ~= '' then
  redis.call('ZADD', IMAGES, 'GT', now + tonumber(ARGV[6]), image)
  -- A repeated call, or another attempt that made the same picture, is no news.
  is_new = redis.call('HSETNX', JOB, 'image:' .. image, 1) == 1
end
if event ~= '' and is_new then
  announce(event, data)
end
if field('cancel') then
  return 'cancel'
end
return 'ok'
