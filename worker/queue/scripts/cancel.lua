-- Cancels a job for a client, or because its deadline has passed (then the nonce says so). Ends it at once
-- if no live worker holds it; otherwise its worker learns it with the next report.
-- ARGV: id, nonce of this call, result TTL
-- Returns cancelled | requested | finished | missing; a repeat with the same nonce returns the same.
local nonce, result_ttl = ARGV[2], tonumber(ARGV[3])

if redis.call('EXISTS', KEY.job) == 0 then
  return 'missing'
end
local status = field('status')
if is_terminal(status) or field('finished') then
  if field('cancel') == nonce then
    return 'cancelled'
  end
  return 'finished'
end
redis.call('HSETNX', KEY.job, 'cancel', nonce)
if status == 'running' and has_lease(field('token')) then
  return 'requested'
end
finish('cancelled', '{}', result_ttl)
return 'cancelled'
