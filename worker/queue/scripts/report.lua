-- The holder reports progress and learns of a cancel.
-- ARGV: id, token, event ('' for none), its data, image name ('' for none), result TTL,
--       seconds since storing of the image began, record field/value...
-- Returns ok | cancel (a client asked for it, or the deadline has passed)
--       | lost (another worker holds the job)
--       | again (an image of the same bytes was removed meanwhile: store it again).
local token, event, data, image = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local result_ttl, store_seconds = tonumber(ARGV[6]), tonumber(ARGV[7])

if field('status') ~= 'running' or field('token') ~= token then
  return 'lost'
end
if #ARGV > 7 then
  redis.call('HSET', KEY.job, unpack(ARGV, 8))
end
local is_new = true
if image ~= '' then
  local removed = redis.call('ZSCORE', KEY.removals, image)
  if removed and tonumber(removed) >= now - store_seconds and not field('cancel') then
    return 'again'
  end
  keep(image, now + result_ttl)
  -- A repeated call, or another attempt that made the same image, is not new.
  is_new = redis.call('HSETNX', KEY.job, 'image:' .. image, 1) == 1
end
if event ~= '' and is_new then
  publish_event(event, data)
end
if field('cancel') or is_overdue() then
  return 'cancel'
end
return 'ok'
