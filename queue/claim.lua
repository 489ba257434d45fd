-- claim: the oldest job, by priority and then by age, that fits what a worker has free.
--
-- It costs O(classes): jobs of one class are alike to a worker, so only the classes' heads are looked at, in the order
-- of the index. Nothing is scanned; a thousand jobs that do not fit are one class.
--
-- Demands are rounded up, so the last job that a worker could hold may be in a class that is larger than all it has: such
-- a class is looked into for the job's own demand (`need`), no further than NEAR_BY, when the worker is empty.
--
-- Fairness: small jobs could for ever slip past a large one that never finds enough free. A head that was refused for
-- longer than the worker's patience therefore reserves a worker that could hold it when empty. That worker takes
-- nothing but what is ahead of it (a higher priority) until it has taken this one, somebody else has, or the
-- reservation has run out.

local RESERVED = OWN .. ':reserved'
local NEAR_BY = 100

-- Whether the worker may take such a job at all, whatever it has free.
local function accepts(worker, demand)
  if demand.host and demand.host ~= worker.host then return false end
  if demand.labels then
    for label in string.gmatch(demand.labels, '[^,]+') do
      if not worker.labels[label] then return false end
    end
  end
  return true
end

local function fits(worker, demand, room)
  return (demand.cpus or worker.share[1]) <= room[1]
    and (demand.memory or worker.share[2]) <= room[2]
    and (demand.disk or worker.share[3]) <= room[3]
end

local FIELDS = {'status', 'dayfly_queued_at', 'dayfly_client', 'dayfly_queue_timeout'}
local LARGE = {data = MAX_PAYLOAD, dayfly_attempts = 1048576, dayfly_signature = 1024, dayfly_images = 65536}

-- A field of a job; '' for one that is larger than any of ours: anybody may have written it, and a worker would have to
-- take it in whole.
local function bounded(id, field)
  if call('HSTRLEN', job_key(id), field) > LARGE[field] then return '' end
  return call('HGET', job_key(id), field) or ''
end

-- Workers name directories by it, and whoever can write to Redis can put anything into a list.
local function is_id(id)
  return #id <= 64 and string.match(id, '^[%w_-][%w_.-]*$') ~= nil
end

-- Ours are ASCII: what anybody else has put into the index names no class.
local function is_class(name)
  return string.match(name, '^[%w%p]+$') ~= nil
end

-- Whether the job is there and waits to be claimed; its FIELDS.
local function waiting(id)
  if not is_id(id) then return false end
  local job = call('HMGET', job_key(id), unpack(FIELDS))
  return job[1] == 'queued' and call('HEXISTS', job_key(id), 'data') == 1, job
end

-- The head of the index's entry, that is a job which really is queued. Ids whose hash has expired, was deleted or was
-- moved on by somebody else are dropped.
local function pop(class)
  for _ = 1, 1000 do
    local id = call('LPOP', list_key(class))
    if not id then break end
    local is_waiting, job = waiting(id)
    if is_waiting then
      index(class)
      return id, job
    end
  end
  index(class)
  return nil
end

-- The first job of a class too large for the worker that, unrounded, is not; nil for none. Rounding adds a cpu or an
-- eighth at most.
local function nearly_all(worker, class, demand)
  local offer = worker.offer
  if (demand.cpus or 0) > offer[1] + 1000 or (demand.memory or 0) > offer[2] * 1.2 or (demand.disk or 0) > offer[3] * 1.2
  then return nil end
  for _, id in ipairs(call('LRANGE', list_key(class), 0, NEAR_BY - 1)) do
    local job = call('HMGET', job_key(id), 'need', 'status')
    if is_id(id) and job[1] and job[2] == 'queued' and fits(worker, demand_of('@' .. job[1]), offer) then return id end
  end
end

-- Take that job, which is not always the head.
local function take(class, id)
  call('LREM', list_key(class), 1, id)
  index(class)
  return call('HMGET', job_key(id), unpack(FIELDS))
end

local function forget_reservation(worker, id)
  call('HDEL', RESERVED, 'worker:' .. worker, 'job:' .. id)
end

-- The class that the worker is kept free for, or nil.
local function reservation(worker, at)
  local held = call('HGET', RESERVED, 'worker:' .. worker.name)
  if not held then return nil end
  local class, id, expires = string.match(held, '^(.*)\n(.*)\n(.*)$')
  if tonumber(expires) > at and call('LPOS', list_key(class), id, 'MAXLEN', NEAR_BY) then return class end
  forget_reservation(worker.name, id)
  return nil
end

-- `head` of `class` does not fit now: reserve this worker for it when it has been refused long enough.
-- Returns 'reserved', 'noted', or 'elsewhere' when another worker is being kept free for it already.
local function refuse(worker, class, head, at)
  local other = call('HGET', RESERVED, 'job:' .. head)
  if other then
    local name, expires = string.match(other, '^(.*)\n(.*)$')
    if tonumber(expires) > at then return 'elsewhere' end
    forget_reservation(name, head)
  end
  local refused = OWN .. ':refused:' .. queue_of(class)
  local id, since = string.match(call('HGET', refused, class) or '', '^(.*)\n(.*)$')
  if id ~= head then
    since = at
    call('HSET', refused, class, head .. '\n' .. text(at))
  end
  if at - tonumber(since) < worker.patience then return 'noted' end
  local expires = text(at + worker.reservation)
  call('HSET', RESERVED, 'worker:' .. worker.name, class .. '\n' .. head .. '\n' .. expires,
    'job:' .. head, worker.name .. '\n' .. expires)
  call('HDEL', refused, class)
  return 'reserved'
end

-- The job is this worker's: what RQ's worker writes before it runs a job, and our lease and fence.
local function hold(worker, id, class, job, execution, at)
  local key, member, when = job_key(id), id .. ':' .. execution, text(at)
  local fence = call('HINCRBY', key, 'dayfly_fence', 1)
  local attempt = call('HINCRBY', key, 'dayfly_attempt', 1)
  call('HSET', key, 'status', 'started', 'started_at', iso(at), 'last_heartbeat', iso(at), 'worker_name', worker.name,
    'ended_at', '', 'dayfly_state', 'starting')
  if fence > 1 then
    -- an attempt before this one, or `rq requeue` of a finished job
    call('HDEL', key, 'dayfly_outcome', 'dayfly_result', 'dayfly_cancel', 'dayfly_log_position', 'dayfly_discarded_at')
    call('PERSIST', OWN .. ':log:' .. id)
  end
  call('PERSIST', key)
  call('HSET', RQ .. ':execution:' .. member, 'id', execution, 'job_id', id, 'created_at', when,
    'last_heartbeat', when, 'worker_name', worker.name)
  call('ZADD', RQ .. ':wip:' .. class, '+inf', member)
  -- What only readers of RQ look at holds up no job.
  redis.pcall('ZADD', RQ .. ':executions:' .. id, '+inf', execution)
  redis.pcall('SADD', RQ .. ':worker:' .. worker.name .. ':executions', member)
  if call('EXISTS', RQ .. ':worker:' .. worker.name) == 1 then
    redis.pcall('HSET', RQ .. ':worker:' .. worker.name, 'state', 'busy')
  end
  call('ZADD', OWN .. ':leases', text(at + worker.lease), member)
  if job[4] then call('ZREM', OWN .. ':deadlines', id) end
  local reserved = call('HGET', RESERVED, 'job:' .. id)
  if reserved then forget_reservation(string.match(reserved, '^[^\n]*'), id) end
  tell(id, 'starting')
  local queued_at = tonumber(job[2] or '') and #job[2] < 32 and job[2] or when
  return {id, class, attempt, tostring(fence), bounded(id, 'data'), queued_at, when, job[3] and '1' or '',
    bounded(id, 'dayfly_attempts'), bounded(id, 'dayfly_signature'), bounded(id, 'dayfly_images')}
end

-- What a class has for the worker: {id, job}; false when nothing is to be claimed now, nil when the next class is to be
-- looked at; and whether the worker may still be reserved.
local function look(worker, class, free, is_empty, may_reserve, at)
  local demand = demand_of(class)
  if not accepts(worker, demand) then return nil, may_reserve end
  if fits(worker, demand, free) then
    local id, job = pop(class)
    return id and {id, job}, may_reserve
  end
  local waits
  if fits(worker, demand, worker.offer) then
    waits = call('LINDEX', list_key(class), 0)
  else
    waits = nearly_all(worker, class, demand)
    if waits and is_empty then return {waits, take(class, waits)}, may_reserve end
  end
  if not (may_reserve and waits) then return nil, may_reserve end
  local answer = refuse(worker, class, waits, at)
  if answer == 'reserved' then return false, may_reserve end
  return nil, answer ~= 'noted'
end

-- `description` is the worker's unchanging part as JSON: name, host, labels, queues, offer, share, lease, patience,
-- reservation. Returns the claim's fields, or false.
local function claim(description, execution, cpus, memory, disk)
  local worker = cjson.decode(description)
  local free = {tonumber(cpus), tonumber(memory), tonumber(disk)}
  local at = now()
  local only = reservation(worker, at)
  local may_reserve = not only
  local is_empty = free[1] >= worker.offer[1] and free[2] >= worker.offer[2] and free[3] >= worker.offer[3]
  for _, queue in ipairs(worker.queues) do
    for _, class in ipairs(call('ZRANGE', OWN .. ':index:' .. queue, 0, -1)) do
      local ended, found, may = is_class(class), nil, may_reserve
      if ended then
        ended, found, may = guarded(function() return look(worker, class, free, is_empty, may_reserve, at) end)
      end
      if not ended then
        call('ZREM', OWN .. ':index:' .. queue, class) -- it is none of ours, or its list is no list
      elseif found then
        return hold(worker, found[1], class, found[2], execution, at)
      elseif found == false then
        return false
      else
        may_reserve = may
      end
      if class == only then return false end
    end
  end
  return false
end
