-- Reads a page of an owner's jobs, newest first, optionally of one status. Ids are ULIDs and sort by time.
-- Changes nothing.
-- ARGV: '', owner, status ('' for any), page size, last id of the page before ('' for none),
--       maximum number of jobs to look at
-- Returns {last id of this page ('' if there are no more), ids...}.
local jobs, wanted, page_size = PREFIX.jobs .. ARGV[2], ARGV[3], tonumber(ARGV[4])
local last, left = ARGV[5], tonumber(ARGV[6])
local page, BATCH = {}, 100

while true do
  local below = last == '' and '+' or '(' .. last
  local known = redis.call('ZREVRANGEBYLEX', jobs, below, '-', 'LIMIT', 0, BATCH)
  for _, job in ipairs(known) do
    if #page == page_size or left == 0 then
      return {last, unpack(page)}
    end
    local status = redis.call('HGET', PREFIX.job .. job, 'status')
    local is_kept = status or redis.call('EXISTS', PREFIX.job .. job) == 1
    if is_kept and (wanted == '' or status == wanted) then
      page[#page + 1] = job
    end
    last, left = job, left - 1
  end
  if #known < BATCH then
    return {'', unpack(page)}
  end
end
