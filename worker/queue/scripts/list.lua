-- A page of an owner's jobs, newest first, of one status if that is asked for. An id is a time and
-- sorts as one.
-- ARGV: '', owner, status ('' for any), most, last id of the page before ('' for none),
--       most to look at
-- Answers the last id of this page if there is more ('' if not), ids...
local jobs, wanted, most, last, left = 'kirazuri:jobs:' .. ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5],
  tonumber(ARGV[6])
local page, STRIDE = {}, 100

while true do
  local below = last == '' and '+' or '(' .. last
  local known = redis.call('ZREVRANGEBYLEX', jobs, below, '-', 'LIMIT', 0, STRIDE)
  for _, job in ipairs(known) do
    if #page == most or left == 0 then
      return {last, unpack(page)}
    end
    local status = redis.call('HGET', 'kirazuri:job:' .. job, 'status')
    if not status then
      redis.call('ZREM', jobs, job)
    elseif wanted == '' or status == wanted then
      page[#page + 1] = job
    end
    last, left = job, left - 1
  end
  if #known < STRIDE then
    return {'', unpack(page)}
  end
end
