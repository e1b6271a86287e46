-- Tells how many jobs will be taken before each of some jobs. Changes nothing.
-- ARGV: '', ids...
-- Returns a number for each id; 0 if the job is not queued.
local positions = {}
for index = 2, #ARGV do
  use_job(ARGV[index], RQ.first_queue)
  positions[index - 1] = field('status') == 'queued' and queue_position() or 0
end
return positions
