-- Finds jobs that neither the queue nor RQ knows. Changes nothing.
-- ARGV: '', ids...
-- Returns their ids.
local lost = {}
for index = 2, #ARGV do
  use_job(ARGV[index], RQ.first_queue)
  if not is_in_line() and not is_known_to_rq() then
    lost[#lost + 1] = id
  end
end
return lost
