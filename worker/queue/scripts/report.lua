-- The holder of some jobs reports their progress and learns of cancels.
-- ARGV: '', result TTL, then for each report: id, token, event ('' for none), its data, image name ('' for
--       none), seconds since storing of the image began, number of record arguments, record field/value...
-- Returns for each report: ok | cancel (a client asked for it, or the deadline has passed)
--       | lost (another worker holds the job)
--       | again (an image of the same bytes was removed meanwhile: store it again before the job ends).
local result_ttl = tonumber(ARGV[2])

-- Whether an event is new: one about a step must tell a later one than this attempt has told. A repeated call
-- does not, and must not take the clients back to earlier steps.
local function is_later(token, event, data)
  local told = event ~= '' and decoded(data) or {}
  if not told.step then
    return true
  end
  local mark = 'told:' .. event .. ':' .. (told.index or '')
  local teller, step = string.match(field(mark) or '', '^(.*) (%d+)$')
  if teller == token and told.step <= tonumber(step) then
    return false
  end
  redis.call('HSET', KEY.job, mark, token .. ' ' .. told.step)
  return true
end

local function report(token, event, data, image, store_seconds, first, last)
  local status, holder, cancel = unpack(redis.call('HMGET', KEY.job, 'status', 'token', 'cancel'))
  if status ~= 'running' or holder ~= token then
    return 'lost'
  end
  local is_new = is_later(token, event, data)
  if is_new and last >= first then
    redis.call('HSET', KEY.job, unpack(ARGV, first, last))
  end
  if image ~= '' then
    local removed = redis.call('ZSCORE', KEY.removals, image)
    if removed and tonumber(removed) >= now - store_seconds and not cancel then
      redis.call('HSET', KEY.job, 'again:' .. image, token)
      return 'again'
    end
    redis.call('HDEL', KEY.job, 'again:' .. image)
    keep(image, now + result_ttl)
    -- A repeated call, or another attempt that made the same image, is not new.
    is_new = redis.call('HSETNX', KEY.job, 'image:' .. image, 1) == 1
  end
  if event ~= '' and is_new then
    publish_event(event, data)
  end
  if cancel or is_overdue() then
    return 'cancel'
  end
  return 'ok'
end

local replies, at = {}, 3
while at <= #ARGV do
  local first = at + 7
  local last = first + tonumber(ARGV[at + 6]) - 1
  use_record(ARGV[at])
  replies[#replies + 1] = report(ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4],
    tonumber(ARGV[at + 5]), first, last)
  at = last + 1
end
return replies
