-- An owner deletes an image. It is gone for them at once; its bytes go unless another owner still has it.
-- ARGV: '', image name, owner
-- Returns unknown | expired | kept (another owner has it, or its bytes are gone already)
--       | remove (the caller deletes the bytes and calls `end_removal`; otherwise a worker does so).
local name, owner = ARGV[2], ARGV[3]
local owners = PREFIX.owners .. name
local keeps = tonumber(redis.call('ZSCORE', owners, owner) or '')

if not keeps then
  return 'unknown'
end
if keeps ~= DELETED and keeps < now then
  return 'expired'
end
redis.call('ZADD', owners, DELETED, owner)
each_maker(owner, name, function(job)
  redis.call('HSET', job, 'deleted:' .. name, stamp(now))
end)
if redis.call('ZCOUNT', owners, now, '+inf') > 0 then
  return 'kept'
end
if redis.call('ZREM', KEY.images, name) == 1 then
  redis.call('ZADD', KEY.removals, REMOVING + now, name)
end
local removal = tonumber(redis.call('ZSCORE', KEY.removals, name) or '0')
return removal > REMOVING and 'remove' or 'kept'
