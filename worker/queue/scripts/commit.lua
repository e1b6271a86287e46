-- The holder ends a job, once. An earlier cancel wins over any other end.
-- ARGV: id, token, status, event data, images, image names, error, timings, result TTL
-- Returns the final status; lost (another worker holds the job) or again (an image must be stored again, as a
-- report in the same round trip answered) if nothing was changed.
local token, status, data = ARGV[2], ARGV[3], ARGV[4]
local images, names, problem, timings = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local result_ttl = tonumber(ARGV[9])

if field('token') ~= token then
  return 'lost'
end
local current = field('status')
if current and is_terminal(current) then
  return current -- the reply to the first call was lost
end
if current ~= 'running' then
  return 'lost'
end
if field('cancel') then
  status, data, images, problem = 'cancelled', '{}', '[]', ''
end
for _, name in ipairs(status == 'succeeded' and cjson.decode(names) or {}) do
  if field('again:' .. name) == token then
    return 'again'
  end
end
redis.call('HSET', KEY.job, 'images', images, 'timings', timings)
if problem ~= '' then
  redis.call('HSET', KEY.job, 'error', problem)
end
local expires = finish(status, data, result_ttl)
if status == 'succeeded' then
  local owner = field('owner') or ''
  for _, name in ipairs(cjson.decode(names)) do
    local maker = PREFIX.maker .. owner .. ':' .. name
    if is_deleted(name) then
      redis.call('HSET', KEY.job, 'deleted:' .. name, stamp(now))
    else
      each_maker(owner, name, function(job)
        redis.call('HDEL', job, 'deleted:' .. name)
      end)
    end
    keep_longer(name, expires)
    local earlier = redis.call('SET', maker, id, 'EX', math.ceil(result_ttl), 'GET')
    if earlier then
      redis.call('HSET', KEY.job, 'earlier:' .. name, earlier)
    end
  end
  local work = number('cost') or 0
  local mean = finite(redis.call('GET', KEY.mean_cost)) or work
  redis.call('SET', KEY.mean_cost, stamp(0.9 * mean + 0.1 * work))
  local promised = number('promised')
  if promised then
    local took = now - (number('created') or now)
    count('promised')
    increase('HINCRBYFLOAT', KEY.counters, 'promised_took', stamp(took))
    increase('HINCRBYFLOAT', KEY.counters, 'promised_error', stamp(math.abs(took - promised)))
  end
end
return status
