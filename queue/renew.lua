-- renew: move the leases of a worker's executions on. ARGV: the worker, seconds, then id, class, execution, fence of each.
--
-- A lease that has run out but was not reaped yet is renewed: its execution still holds the job. One whose job is no
-- hash any more is lost, and the others are renewed.
-- Returns one word for each: held, cancel (its cancel was asked for), kill (likewise, without grace), lost.
local at = now()

local function renew(id, class, execution, fence)
  local member = id .. ':' .. execution
  local job = call('HMGET', job_key(id), 'dayfly_fence', 'dayfly_cancel')
  if job[1] ~= fence or not call('ZSCORE', RQ .. ':wip:' .. class, member) then return 'lost' end
  call('ZADD', OWN .. ':leases', text(at + tonumber(ARGV[2])), member)
  call('HSET', job_key(id), 'last_heartbeat', iso(at))
  call('HSET', RQ .. ':execution:' .. member, 'last_heartbeat', text(at))
  -- any other word than kill is a cancel too: anybody may have written it
  return not job[2] and 'held' or job[2] == 'kill' and 'kill' or 'cancel'
end

local words = {}
for i = 3, #ARGV, 4 do
  local ended, word = guarded(function() return renew(unpack(ARGV, i, i + 3)) end)
  words[#words + 1] = ended and word or 'lost'
end
return words
