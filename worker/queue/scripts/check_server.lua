-- Checks the server for faults. Redis refuses the script, and says why, when it accepts no writes.
-- ARGV: ''
-- Returns {used share of its memory, {code, reason}...}.
local used, faults = server_faults()
return {stamp(used), unpack(faults)}
