-- waiting: jobs that wait for others, looked at by themselves. ARGV: ids.
--
-- For what settle.lua could not do because its caller died, and for jobs that RQ's code took out of its registry of
-- waiting ones and then died. Returns id and reason of each that can now never run.
local at = now()
local answer = {}
for _, id in ipairs(ARGV) do
  local job = call('HMGET', job_key(id), 'status', 'origin', 'dayfly_queue')
  local status, class = job[1], job[2]
  if not status then
    answer[#answer + 1] = id
    answer[#answer + 1] = ''
  elseif job[3] and (status == 'deferred' or status == 'ready_to_enqueue') then
    local verdict = dependencies(id)
    if verdict == 'met' then
      call('ZREM', RQ .. ':deferred:' .. class, id)
      call('ZREM', RQ .. ':ready:' .. class, id)
      for _, other in ipairs(call('SMEMBERS', RQ .. ':job::' .. id .. ':dependencies')) do
        call('SREM', job_key(other) .. ':dependents', id)
      end
      release(id, class, at)
    elseif verdict ~= 'pending' then
      answer[#answer + 1] = id
      answer[#answer + 1] = verdict
    end
  end
end
return answer
