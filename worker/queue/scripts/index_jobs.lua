-- Adds jobs to the lists of their owners, and their images to those that the owners may see. An older
-- release wrote records without them.
-- ARGV: '', ids...
for index = 2, #ARGV do
  use_job(ARGV[index], RQ.first_queue)
  local jobs, ttl = owned_jobs(), redis.call('PTTL', KEY.job)
  if field('finished') then
    local is_first = redis.call('EXISTS', jobs) == 0
    redis.call('ZADD', jobs, 0, id)
    if is_first then
      redis.call('PEXPIRE', jobs, math.max(ttl, 1))
    else
      redis.call('PEXPIRE', jobs, math.max(ttl, 1), 'GT') -- a list of unfinished jobs does not expire
    end
    local expires = number('expires') or now
    for _, image in ipairs(decoded(field('images'))) do
      local url = type(image) == 'table' and tostring(image.url) or ''
      local name = expires > now and string.match(url, '([^/]+)$')
      if name then
        keep(name, expires)
      end
    end
  elseif ttl == -1 then
    redis.call('ZADD', jobs, 0, id)
    redis.call('PERSIST', jobs)
    redis.call('SADD', unfinished_jobs(), id)
  end
end
return 'ok'
