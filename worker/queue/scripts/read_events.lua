-- Reads a page of each of some jobs' events: those after the last event that a listener saw, up to a size.
-- ARGV: '', maximum bytes of a page (its first event is read whatever its size), then for each page: id of
--       the job, id of that event ('' for none)
-- Returns for each page {} (no such job), or {{status, finished, images, started}, owner, id of the newest
--         event, missing, {id, event, data}..., and the job's state if something is missing}. The fields after
--         the status tell an unknown status of a newer release. `missing` is '' (nothing), start (the
--         listener saw no event, and the first ones were trimmed) or gap (events after the one it saw may
--         have been trimmed); the page then begins with the oldest event that is kept.
local page_bytes = tonumber(ARGV[2])
local BATCH = 16

local function is_before(one, other)
  local milliseconds, count = string.match(one, '^(%d+)-(%d+)$')
  local other_milliseconds, other_count = string.match(other, '^(%d+)-(%d+)$')
  if not milliseconds or #count > 19 then
    return false -- not an id of this service
  end
  milliseconds, other_milliseconds = tonumber(milliseconds), tonumber(other_milliseconds)
  return milliseconds < other_milliseconds
    or (milliseconds == other_milliseconds and tonumber(count) < tonumber(other_count))
end

local function read_page(after)
  local status = redis.call('HMGET', KEY.job, 'status', 'finished', 'images', 'started', 'last_event',
    'events', 'owner', 'attempt', 'worker', 'error')
  if not status[1] and redis.call('EXISTS', KEY.job) == 0 then
    return {}
  end
  local newest, room = status[5] or '0-0', page_bytes
  local is_trimmed = redis.call('XLEN', KEY.events) < (finite(status[6]) or 0)
  local missing = ''
  if after == '' then
    missing = is_trimmed and 'start' or ''
  elseif after ~= newest then
    local is_whole = is_before(after, newest)
      and (not is_trimmed or #redis.call('XRANGE', KEY.events, after, after) == 1)
    missing = is_whole and '' or 'gap'
  end

  local entries, from = {}, '-'
  if missing == '' and after ~= '' then
    from = '(' .. after
  end
  while from do
    local found = redis.call('XRANGE', KEY.events, from, '+', 'COUNT', BATCH)
    from = #found == BATCH and '(' .. found[BATCH][1]
    for _, entry in ipairs(found) do
      local event, data = entry[2][2], entry[2][4]
      room = room - #data
      if room < 0 and #entries > 0 then
        from = false
        break
      end
      entries[#entries + 1] = {entry[1], event, data}
    end
  end

  local state = {}
  if missing ~= '' then
    state = {status[8], status[9], status[3], status[10]}
  end
  return {{status[1], status[2], status[3], status[4]}, status[7] or '', newest, missing, entries, state}
end

local pages = {}
for index = 3, #ARGV, 2 do
  use_record(ARGV[index])
  pages[#pages + 1] = read_page(ARGV[index + 1])
end
return pages
