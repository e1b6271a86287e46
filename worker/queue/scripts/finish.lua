-- Ends a job: record, event and RQ's side in one step. The events expire earlier than the record, which then
-- tells the end of the job.
local EVENTS_TTL = 900
local function finish(status, data, result_ttl)
  local expires, token = now + result_ttl, field('token')
  if status == 'cancelled' then
    -- Without a client's cancel, only the deadline cancels a job.
    local is_client = field('cancel') and field('cancel') ~= DEADLINE_NONCE
    data = is_client and '{"reason":"client"}' or '{"reason":"deadline"}'
  end
  if token then
    redis.call('ZREM', KEY.rq_leases, id .. RQ.separator .. token)
  end
  give_up_turn()
  redis.call('LREM', KEY.rq_list, 0, id)
  redis.call('DEL', KEY.rq_job)
  redis.call('HSET', KEY.job, 'status', status, 'finished', stamp(now), 'expires', stamp(expires))
  redis.call('ZREM', KEY.queued, id)
  redis.call('ZREM', KEY.running, id)
  redis.call('ZREM', KEY.deadlines, id)
  count(status)
  observe('took_' .. status, now - (number('created') or now))
  local problem = status == 'failed' and field('error')
  if problem then
    count('failed:' .. (decoded(problem).code or 'unknown'))
  end
  publish_event(status, data)
  for _, name in ipairs(decoded(field('inputs'))) do
    redis.call('SREM', PREFIX.holders .. name, id)
    keep_longer(name, expires)
  end
  redis.call('SREM', unfinished_jobs(), id)
  if redis.call('EXISTS', unfinished_jobs()) == 0 then
    redis.call('EXPIRE', owned_jobs(), math.ceil(result_ttl)) -- expires with the last of its jobs
  end
  -- The owner does not pay for a job that failed or did not start.
  local day = number('paid_on')
  if day and (status == 'failed' or (status == 'cancelled' and not field('started'))) then
    spend(field('owner'), day, stamp(-(number('cost') or 0)))
  end
  redis.call('EXPIRE', KEY.job, math.ceil(result_ttl))
  redis.call('EXPIRE', KEY.events, math.ceil(math.min(result_ttl, EVENTS_TTL)))
  return expires
end
