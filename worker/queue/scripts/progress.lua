-- The holder reports and learns: news out, cancel flag in.
-- ARGV: id, token, event ('' for none), its data, image name ('' for none), result ttl,
--       seconds since the image began to be stored, record field/value...
-- Answers ok | cancel (a client asked for it, or its time is over)
--       | lost (the job is no longer this worker's)
--       | again (another job's image of the same bytes was removed meanwhile: store it anew).
local token, event, data, image = ARGV[2], ARGV[3], ARGV[4], ARGV[5]

if field('status') ~= 'running' or field('token') ~= token then
  return 'lost'
end
if #ARGV > 7 then
  redis.call('HSET', JOB, unpack(ARGV, 8))
end
local is_new = true
if image ~= '' then
  local removed = redis.call('ZSCORE', REMOVALS, image)
  if removed and tonumber(removed) >= now - tonumber(ARGV[7]) and not field('cancel') then
    return 'again'
  end
  keep(image, now + tonumber(ARGV[6]))
  -- A repeated call, or another attempt that made the same picture, is no news.
  is_new = redis.call('HSETNX', JOB, 'image:' .. image, 1) == 1
end
if event ~= '' and is_new then
  announce(event, data)
end
if field('cancel') or is_overdue() then
  return 'cancel'
end
return 'ok'
