-- stamp: what makes a job of RQ's one of ours.

-- `options`: need (what it asks, not rounded as its class is), delay, queue_timeout (seconds), unique, client (seconds of
-- the client's lease), retry_of, signature.
-- Returns the job's sequence number.
local function stamp(id, class, options, at)
  local key = job_key(id)
  local seq = call('INCR', OWN .. ':seq')
  call('HSET', key, 'need', options.need, 'seq', seq, 'dayfly_queue', queue_of(class),
    'dayfly_submitted_at', text(at))
  call('ZADD', OWN .. ':jobs', text(at), id)
  call('ZADD', OWN .. ':ids', 0, id)
  if options.delay then call('HSET', key, 'dayfly_not_before', text(at + options.delay)) end
  if options.queue_timeout then call('HSET', key, 'dayfly_queue_timeout', options.queue_timeout) end
  if options.retry_of then call('HSET', key, 'dayfly_retry_of', options.retry_of) end
  if options.signature then call('HSET', key, 'dayfly_signature', options.signature) end
  if options.unique then
    call('HSET', key, 'dayfly_unique', options.unique)
    call('SET', OWN .. ':unique:' .. options.unique, id)
  end
  if options.client then
    call('HSET', key, 'dayfly_client', options.client)
    call('ZADD', OWN .. ':clients', text(at + options.client), id)
  end
  return seq
end
