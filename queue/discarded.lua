-- discarded: nothing of a finished job is left on its worker. ARGV: id, fence, when (unix seconds by the worker's clock).
--
-- It comes after the result was written, often seconds later and for many jobs at once; a job that has expired or was
-- deleted meanwhile must not come back as a hash of one field. Returns 1 when it was noted.
local id, fence, at = unpack(ARGV)
if call('HGET', job_key(id), 'dayfly_fence') ~= fence then return 0 end
call('HSET', job_key(id), 'dayfly_discarded_at', at)
return 1
