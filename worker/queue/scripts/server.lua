-- Whether this server may lose accepted jobs, or has no room for more: the used share of its memory, and
-- faults as {code, reason}.
local ROOM = 0.8
local function server_faults()
  local info, faults = redis.pcall('INFO', 'memory', 'persistence'), {}
  local function add(code, reason)
    faults[#faults + 1] = {code, reason}
  end
  if type(info) ~= 'string' then
    add('unknown', 'its settings are not checked, because this user may not call INFO')
    return 0, faults
  end
  local function value(name)
    return string.match(info, '\n' .. name .. ':([^\r\n]*)')
  end
  local policy, limit = value('maxmemory_policy'), tonumber(value('maxmemory') or 0)
  if policy and policy ~= 'noeviction' then
    add('eviction', 'it may delete accepted jobs; set maxmemory-policy to noeviction, not ' .. policy)
  end
  if value('aof_enabled') == '0' then
    add('append_only_file', 'it loses accepted jobs when it ends; set appendonly to yes')
  end
  local used = limit > 0 and tonumber(value('used_memory')) / limit or 0
  if used > ROOM then
    add('memory', string.format('%.0f %% of its maxmemory are in use, and jobs are accepted below %.0f %%',
      100 * used, 100 * ROOM))
  end
  return used, faults
end

-- The reason of the first fault whose code is in a text of codes.
local function fault_among(codes)
  local _, faults = server_faults()
  for _, fault in ipairs(faults) do
    if string.find(codes, fault[1], 1, true) then
      return fault[2]
    end
  end
end
