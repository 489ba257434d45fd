-- finish: the end of an attempt that ends the job. Nothing happens unless the caller's execution still holds it.

-- `seconds` is how long the worker worked on it; `entry` the rest of RQ's Result. Returns -1 when the fence refused,
-- else how much close() left to do.
local function finish(worker, id, class, execution, fence, status, outcome, result, seconds, value_name, value)
  if not is_held(id, class, execution, fence) then return -1 end
  local at = now()
  local member = id .. ':' .. execution
  local started = call('HGET', RQ .. ':execution:' .. member, 'created_at') or text(at)
  let_go(id, class, execution, worker)
  local key = RQ .. ':worker:' .. worker
  if call('EXISTS', key) == 1 then
    redis.pcall('HINCRBY', key, status == 'finished' and 'successful_job_count' or 'failed_job_count', 1)
    redis.pcall('HINCRBYFLOAT', key, 'total_working_time', seconds)
  end
  call('HDEL', job_key(id), 'dayfly_cancel', 'dayfly_log_position')
  return close(id, class, at, status, outcome, result, {
    'worker_name', worker, value_name, value, 'execution_id', execution,
    'execution_started_at', started, 'execution_ended_at', text(at)})
end
