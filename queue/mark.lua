-- mark: a job that an execution holds has reached another state. Returns 1, or 0 when the fence refused.
--
-- `images`: the digests of the images that it runs on, kept for its further attempts.
local id, class, execution, fence, state, images = unpack(ARGV)
if call('HGET', job_key(id), 'dayfly_fence') ~= fence then return 0 end
if not call('ZSCORE', RQ .. ':wip:' .. class, id .. ':' .. execution) then return 0 end
call('HSET', job_key(id), 'dayfly_state', state)
if images ~= '' then call('HSETNX', job_key(id), 'dayfly_images', images) end
tell(id, state)
return 1
