-- log: append frames to a job's log. ARGV: id, fence, bytes kept, position, frames.
--
-- `position` is where in the keeper's own log the frames end ('' when there is none): what was appended before is
-- passed over, so an agent that adopts a job can send the same again. Only the newest bytes are kept; each entry says
-- at which byte of the whole log it starts (o), so that a follower sees what is left out. Returns 1 when appended.
local id, fence, limit, position, frames = unpack(ARGV)
local ENTRY = 128 -- about what an entry costs beside its frames
local key, log = job_key(id), OWN .. ':log:' .. id
local job = call('HMGET', key, 'dayfly_fence', 'dayfly_log_position')
if job[1] ~= fence then return 0 end
if position ~= '' then
  if tonumber(position) <= (tonumber(job[2] or '') or 0) then return 0 end
  call('HSET', key, 'dayfly_log_position', position)
end
local written = call('HINCRBY', key, 'dayfly_log_bytes', #frames)
call('XADD', log, '*', 'o', written - #frames, 'f', frames)
local kept = call('HINCRBY', key, 'dayfly_log_kept', #frames + ENTRY)
while kept > tonumber(limit) do
  local oldest = call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  if not oldest then break end
  call('XDEL', log, oldest[1])
  kept = call('HINCRBY', key, 'dayfly_log_kept', -(#oldest[2][4] + ENTRY))
end
return 1
