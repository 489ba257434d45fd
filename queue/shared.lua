-- What all our scripts share. scripts.py puts RQ (RQ's key prefix), OWN (ours) and MAX_PAYLOAD (bytes) in front of it.
--
-- Keys are not passed in KEYS: a job's class, worker and dependents are only known once its hash has been read. So a
-- Redis Cluster cannot run these scripts; RQ itself cannot run there either.

local call = redis.call

local RETAIN = 604800 -- seconds that a finished job, its result and its log are kept: 7 days

-- Whether an error says that a key is not what ours would be: anybody may have written it.
local function is_damage(fault)
  local said = type(fault) == 'table' and fault.err or tostring(fault)
  for _, words in ipairs({'WRONGTYPE', 'is not an integer', 'is not a float', 'not a valid float', 'attempt to'}) do
    if string.find(said, words, 1, true) then return true end
  end
  return false
end

-- What `step` returns, and before it whether it came to its end; an error of any other kind is passed on.
local function guarded(step)
  local ended, answer, more = pcall(step)
  if not ended and not is_damage(answer) then error(answer) end
  return ended, answer, more
end

-- Unix seconds by the server's clock. It is the only clock that leases and delays are measured with.
local function now()
  local t = call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end

local function text(at)
  return string.format('%.6f', at)
end

-- RQ's way to write a time: 2026-01-31T23:59:59.000001Z. Lua in Redis has no os.date; the calendar is Howard
-- Hinnant's civil_from_days (https://howardhinnant.github.io/date_algorithms.html).
local function iso(at)
  local floor = math.floor
  local whole = floor(at)
  local days = floor(whole / 86400)
  local rest = whole - days * 86400
  local z = days + 719468
  local era = floor(z / 146097)
  local doe = z - era * 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local mp = floor((5 * doy + 2) / 153)
  local day = doy - floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', year, month, day,
    floor(rest / 3600), floor(rest / 60) % 60, rest % 60, floor((at - whole) * 1000000))
end

local function job_key(id) return RQ .. ':job:' .. id end
local function list_key(class) return RQ .. ':queue:' .. class end
local function queue_of(class) return string.match(class, '^[^@]*') end

-- The demands that a class is named after (jobs/demand.py): ci@2000:4096:10240:p10:hnode-7:ldisk=nvme,gpu
-- cpus, memory and disk are nil where the job leaves them to the worker.
local function demand_of(class)
  local cpus, memory, disk, rest = string.match(class, '^[^@]*@([^:]+):([^:]+):([^:]+)(.*)$')
  local demand = {priority = 0}
  if not cpus then return demand end
  demand.cpus, demand.memory, demand.disk = tonumber(cpus), tonumber(memory), tonumber(disk)
  if rest ~= '' then
    for tag, value in string.gmatch(rest, ':(%l)([^:]*)') do
      if tag == 'p' then demand.priority = tonumber(value)
      elseif tag == 'h' then demand.host = value
      elseif tag == 'l' then demand.labels = value end
    end
  end
  return demand
end

-- The order of classes in the index: priority first, then the sequence number of the oldest job. A double holds both
-- exactly while there are fewer than 10^11 jobs, priorities being -100 to 100.
local function order(priority, seq)
  return string.format('%.0f', -priority * 100000000000 + seq)
end

-- Put a class where its oldest job belongs, or out of the index when it has none.
local function index(class)
  local key = OWN .. ':index:' .. queue_of(class)
  local head = call('LINDEX', list_key(class), 0)
  if not head then
    call('ZREM', key, class)
    return nil
  end
  local seq = tonumber(call('HGET', job_key(head), 'seq') or '') or 0
  call('ZADD', key, order(demand_of(class).priority, seq), class)
  return head
end

local function tell(id, state)
  call('PUBLISH', OWN .. ':job:' .. id, state)
end

-- A job becomes claimable: at the end of its class, or at the front when it has waited before.
local function push(id, class, at, front)
  local job = call('HMGET', job_key(id), 'dayfly_queue_timeout', 'dayfly_queued_at')
  call('HSET', job_key(id), 'status', 'queued', 'enqueued_at', iso(at), 'origin', class, 'dayfly_state', 'queued')
  if not job[2] then call('HSET', job_key(id), 'dayfly_queued_at', text(at)) end
  if job[1] then call('ZADD', OWN .. ':deadlines', text(at + tonumber(job[1])), id) end
  call('SADD', RQ .. ':queues', list_key(class))
  call(front and 'LPUSH' or 'RPUSH', list_key(class), id)
  index(class)
  tell(id, 'queued')
  call('PUBLISH', OWN .. ':wake:' .. queue_of(class), class)
end

-- A job waits for its time in RQ's own registry of scheduled jobs.
local function delay(id, class, at)
  call('HSET', job_key(id), 'status', 'scheduled', 'origin', class, 'dayfly_state', 'delayed')
  call('SADD', RQ .. ':queues', list_key(class))
  call('ZADD', RQ .. ':scheduled:' .. class, text(at), id)
  tell(id, 'delayed')
end

-- A waiting job's dependencies are met: queue it, or delay it when its time has not come.
local function release(id, class, at)
  local due = tonumber(call('HGET', job_key(id), 'dayfly_not_before') or '')
  if due and due > at then delay(id, class, due) else push(id, class, at, false) end
end

-- How a job's dependencies stand: 'met', 'pending', or the id of one that ended in a way that the job does not accept.
-- A dependency that Redis no longer knows counts as met, as it does in RQ.
local function dependencies(id)
  local any = call('HGET', job_key(id), 'allow_dependency_failures') == '1'
  local verdict = 'met'
  for _, other in ipairs(call('SMEMBERS', RQ .. ':job::' .. id .. ':dependencies')) do
    local status = call('HGET', job_key(other), 'status')
    if status == 'failed' or status == 'stopped' or status == 'canceled' then
      if not any then return other end
    elseif status and status ~= 'finished' then
      verdict = 'pending'
    end
  end
  return verdict
end

-- A worker lets go of an execution, whatever becomes of the job.
local function let_go(id, class, execution, worker)
  local member = id .. ':' .. execution
  call('DEL', RQ .. ':execution:' .. member)
  call('ZREM', OWN .. ':leases', member)
  redis.pcall('ZREM', RQ .. ':executions:' .. id, execution)
  local held = RQ .. ':worker:' .. worker .. ':executions'
  redis.pcall('SREM', held, member)
  if call('EXISTS', held) == 0 and call('EXISTS', RQ .. ':worker:' .. worker) == 1 then
    redis.pcall('HSET', RQ .. ':worker:' .. worker, 'state', 'idle')
  end
end

-- The fence: only the execution that holds the job may move it. It does not matter how late it comes.
local function is_held(id, class, execution, fence)
  return call('HGET', job_key(id), 'dayfly_fence') == fence
    and call('ZREM', RQ .. ':wip:' .. class, id .. ':' .. execution) == 1
end

-- A job's end, whether it ran or not: fields, RQ's result stream and registry, our bookkeeping, how long all is kept.
-- `status` is RQ's word (finished, failed, canceled), `entry` the fields of RQ's Result beside its type. Returns how
-- much is left to do by aftermath.py: jobs that waited for this one, a repeat, a rate limit.
local function close(id, class, at, status, outcome, result, entry)
  local key = job_key(id)
  call('HSET', key, 'status', status, 'ended_at', iso(at), 'last_heartbeat', iso(at),
    'dayfly_state', 'finished', 'dayfly_outcome', outcome, 'dayfly_result', result)
  call('XADD', RQ .. ':results:' .. id, 'MAXLEN', 10, '*',
    'type', status == 'finished' and '1' or '2', unpack(entry))
  if status == 'canceled' then
    call('ZADD', RQ .. ':canceled:' .. class, math.floor(at), id)
  else
    call('ZADD', RQ .. ':' .. status .. ':' .. class, math.floor(at) + RETAIN, id)
  end
  local unique = call('HGET', key, 'dayfly_unique')
  if unique and call('GET', OWN .. ':unique:' .. unique) == id then call('DEL', OWN .. ':unique:' .. unique) end
  call('ZREM', OWN .. ':deadlines', id)
  call('ZREM', OWN .. ':clients', id)
  call('EXPIRE', key, RETAIN)
  call('EXPIRE', key .. ':dependents', RETAIN)
  call('EXPIRE', RQ .. ':job::' .. id .. ':dependencies', RETAIN)
  call('EXPIRE', RQ .. ':results:' .. id, RETAIN)
  call('EXPIRE', OWN .. ':log:' .. id, RETAIN)
  tell(id, 'finished')
  local more = call('HMGET', key, 'repeats_left', 'rate_limit_key')
  return call('SCARD', key .. ':dependents') + (more[1] and 1 or 0) + (more[2] and 1 or 0)
end
