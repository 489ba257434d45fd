-- enqueue: our part of a submission, in the transaction in which RQ's classes have just written the job.
-- ARGV: id, class, the word for where RQ has put it (queued, delayed, waiting), the options of stamp() as JSON.
--
-- Returns '', or the id of the dependency because of which the job can never run.
local id, class, state = ARGV[1], ARGV[2], ARGV[3]
local options = cjson.decode(ARGV[4])
local at = now()
local seq = stamp(id, class, options, at)
call('HSET', job_key(id), 'dayfly_state', state)

if state == 'queued' and options.delay then
  -- everything it was to run after has ended already; the delay counts from now
  call('LREM', list_key(class), -1, id)
  delay(id, class, at + options.delay)
elseif state == 'queued' then
  call('HSET', job_key(id), 'dayfly_queued_at', text(at))
  if options.queue_timeout then call('ZADD', OWN .. ':deadlines', text(at + options.queue_timeout), id) end
  -- An older head keeps its place: NX.
  local queue = queue_of(class)
  call('ZADD', OWN .. ':index:' .. queue, 'NX', order(demand_of(class).priority, seq), class)
  call('PUBLISH', OWN .. ':wake:' .. queue, class)
elseif state == 'delayed' then
  -- RQ has written the producer's clock in whole seconds; the server's counts.
  call('ZADD', RQ .. ':scheduled:' .. class, 'XX', text(at + options.delay), id)
else
  -- RQ looks at a dependency when it ends; one that had failed before would be waited for in vain.
  local verdict = dependencies(id)
  if verdict == 'met' then
    call('ZREM', RQ .. ':deferred:' .. class, id)
    release(id, class, at)
  elseif verdict ~= 'pending' then
    return verdict
  end
end
return ''
