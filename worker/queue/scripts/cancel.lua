-- A client no longer wants a job, or its deadline (the nonce then says so) has come. Without a living holder it ends here and now; else the holder
-- is told with its next progress call.
-- ARGV: id, nonce of this call, result ttl, events ttl
-- Answers cancelled | requested | finished | missing; a repeat with the same nonce answers alike.
local nonce, result_ttl, events_ttl = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local status = field('status')
if not status then
  return 'missing'
end
if is_terminal(status) then
  if field('cancel') == nonce then
    return 'cancelled'
  end
  return 'finished'
end
redis.call('HSETNX', JOB, 'cancel', nonce)
if status == 'running' and has_lease(field('token')) then
  return 'requested'
end
finish('cancelled', '{}', result_ttl, events_ttl)
return 'cancelled'
