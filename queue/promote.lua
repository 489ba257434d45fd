-- promote: queue the jobs whose time has come. ARGV: names of classes and of queues.
--
-- RQ's own registry of scheduled jobs holds them, so jobs of plain RQ producers (enqueue_in) come along; RQ itself
-- would need a scheduler process for that. Returns the number of jobs.
local at = now()
local count = 0
for _, name in ipairs(ARGV) do
  local scheduled = RQ .. ':scheduled:' .. name
  for _, id in ipairs(call('ZRANGEBYSCORE', scheduled, 0, text(at), 'LIMIT', 0, 1000)) do
    call('ZREM', scheduled, id)
    if call('EXISTS', job_key(id)) == 1 then
      count = count + 1
      if string.find(name, '@', 1, true) then
        push(id, name, at, call('HEXISTS', job_key(id), 'dayfly_fence') == 1)
      else
        call('HSET', job_key(id), 'status', 'queued', 'enqueued_at', iso(at))
        call('RPUSH', list_key(name), id)
      end
    end
  end
end
return count
