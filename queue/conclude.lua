-- conclude: the end of a job that no worker holds: cancelled, timed out in the queue, refused.
-- ARGV: id, RQ's status, outcome, result, name and value of RQ's Result, condition.
--
-- Returns -1 when a worker holds it, it is over, or it is not (any more) in the state `condition` ('' for any);
-- else how much close() left to do.
local id, status, outcome, result, value_name, value, condition = unpack(ARGV)
local job = call('HMGET', job_key(id), 'status', 'origin')
local now_is, class = job[1], job[2]
if not now_is or now_is == 'started' or now_is == 'finished' or now_is == 'failed' or now_is == 'stopped'
  or now_is == 'canceled' or (condition ~= '' and condition ~= now_is) then
  return -1
end
class = class or ''
if now_is == 'queued' then
  if call('LREM', list_key(class), 1, id) == 1 and string.find(class, '@', 1, true) then index(class) end
else
  call('ZREM', RQ .. ':scheduled:' .. class, id)
  call('ZREM', RQ .. ':deferred:' .. class, id)
  call('ZREM', RQ .. ':ready:' .. class, id)
  for _, other in ipairs(call('SMEMBERS', RQ .. ':job::' .. id .. ':dependencies')) do
    call('SREM', job_key(other) .. ':dependents', id)
  end
end
-- a parked job of a plain RQ producer was never stamped, and is to be listed all the same
call('ZADD', OWN .. ':jobs', 'NX', text(now()), id)
call('ZADD', OWN .. ':ids', 0, id)
return close(id, class, now(), status, outcome, result, {'worker_name', '', value_name, value})
