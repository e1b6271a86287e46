-- Finds the checkpoints for which queued jobs, and jobs of lost workers, wait. Changes nothing.
-- ARGV: ''
-- Returns a list of {card, checkpoint}, without jobs that name no card.
local found, is_known = {}, {}

local function add(card, checkpoint)
  local name = card .. ':' .. checkpoint
  if card ~= '' and not is_known[name] then
    is_known[name] = true
    found[#found + 1] = {card, checkpoint}
  end
end

for _, queue in ipairs(QUEUES_OLDEST_FIRST) do
  for _, name in ipairs(redis.call('SMEMBERS', KEY.checkpoints)) do
    local card, checkpoint = string.match(name, '^(.*):(.-)$')
    use_queue(queue, card, checkpoint)
    if redis.call('EXISTS', KEY.turns) == 1 then
      add(card, checkpoint)
    end
  end
  for _, job in ipairs(redis.call('LRANGE', RQ.list .. queue, 0, FRONT - 1)) do
    local named = redis.call('HMGET', PREFIX.job .. job, 'card', 'checkpoint')
    add(named[1] or '', named[2] or '')
  end
end
return found
