-- log: append frames to a job's log. ARGV: id, fence, bytes kept, patience, then pairs of position and frames.
--
-- `position` is where in the keeper's own log the frames end ('' when there is none): what was appended before is
-- passed over, so an agent that adopts a job can send the same again. Only the newest bytes are kept; each entry says
-- at which byte of the whole log it starts (o), so that a follower sees what is left out.
--
-- What a follower has not read yet is not taken away while it reads on: then the rest is refused, and sent again later.
-- One that has not been heard of for `patience` seconds is not waited for. Returns how many pairs are done with.
--
-- Where somebody else has written what is no log, it begins anew; where that does not help, nothing is appended.
local id, fence, limit, patience = unpack(ARGV, 1, 4)
local ENTRY = 128 -- about what an entry costs beside its frames
local PAIRS = (#ARGV - 4) / 2
local key, log, readers = job_key(id), OWN .. ':log:' .. id, OWN .. ':readers:' .. id
local at, kept, unread

-- The first byte that the slowest follower has not read, or nil without any.
local function first_unread()
  local least
  local found = call('HGETALL', readers)
  for index = 1, #found, 2 do
    local offset, heard = string.match(found[index + 1], '^(%d+) ([%d.]+)$')
    if not tonumber(heard) or now() - tonumber(heard) > tonumber(patience) then call('HDEL', readers, found[index])
    elseif not least or tonumber(offset) < least then least = tonumber(offset) end
  end
  return least
end

local function make_room(bytes)
  while kept + bytes > tonumber(limit) do
    local oldest = call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    if not oldest then return true end
    unread = unread or first_unread() or math.huge
    local offset, frames = tonumber(oldest[2][2]), oldest[2][4]
    if offset + #frames > unread then return false end
    call('XDEL', log, oldest[1])
    kept = kept - #frames - ENTRY
  end
  return true
end

local function append()
  local job = call('HMGET', key, 'dayfly_fence', 'dayfly_log_position', 'dayfly_log_kept')
  if job[1] ~= fence then return PAIRS end
  at, kept, unread = tonumber(job[2] or '') and job[2] or '0', tonumber(job[3] or '') or 0, nil
  local done = 0
  for index = 5, #ARGV, 2 do
    local position, frames = ARGV[index], ARGV[index + 1]
    if position == '' or tonumber(position) > tonumber(at) then
      if not make_room(#frames + ENTRY) then break end
      local written = call('HINCRBY', key, 'dayfly_log_bytes', #frames)
      call('XADD', log, '*', 'o', written - #frames, 'f', frames)
      kept = kept + #frames + ENTRY
      if position ~= '' then at = position end
    end
    done = done + 1
  end
  call('HSET', key, 'dayfly_log_kept', kept, 'dayfly_log_position', at)
  return done
end

local ended, done = guarded(append)
if not ended then
  call('DEL', log, readers)
  redis.pcall('HDEL', key, 'dayfly_log_bytes', 'dayfly_log_kept')
  ended, done = guarded(append)
end
return ended and done or PAIRS
