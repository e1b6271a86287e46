-- The end of a job: record, event and RQ's side in one step.
local function finish(status, data, result_ttl, events_ttl)
  local expires, token = now + result_ttl, field('token')
  if status == 'cancelled' then
    -- Only a deadline ends jobs that no client ended.
    local is_client = field('cancel') and field('cancel') ~= 'deadline'
    data = is_client and '{"reason":"client"}' or '{"reason":"deadline"}'
  end
  if token then
    redis.call('ZREM', RQ_LEASES, id .. ':' .. token)
  end
  give_up_turn()
  redis.call('LREM', RQ_QUEUE, 0, id)
  redis.call('DEL', RQ_JOB)
  redis.call('HSET', JOB, 'status', status, 'finished', stamp(now), 'expires', stamp(expires))
  redis.call('ZREM', QUEUED, id)
  redis.call('ZREM', RUNNING, id)
  redis.call('ZREM', DEADLINES, id)
  redis.call('HINCRBY', TOTALS, status, 1)
  observe('took_' .. status, now - tonumber(field('created') or now))
  local problem = status == 'failed' and field('error')
  if problem then
    redis.call('HINCRBY', TOTALS, 'failed:' .. (cjson.decode(problem).code or 'unknown'), 1)
  end
  announce(status, data)
  for _, name in ipairs(cjson.decode(field('inputs') or '[]')) do
    redis.call('SREM', holders(name), id)
    keep(name, expires)
  end
  redis.call('SREM', unfinished_jobs(), id)
  if redis.call('EXISTS', unfinished_jobs()) == 0 then
    redis.call('EXPIRE', owned_jobs(), math.ceil(result_ttl)) -- goes with the last of its jobs
  end
  -- What was not done, or not well, is not paid for.
  local day = field('paid_on')
  if day and (status == 'failed' or (status == 'cancelled' and not field('started'))) then
    spend(field('owner'), tonumber(day), '-' .. field('cost'))
  end
  redis.call('EXPIRE', JOB, math.ceil(result_ttl))
  redis.call('EXPIRE', EVENTS, math.ceil(math.min(result_ttl, events_ttl)))
  return expires
end
