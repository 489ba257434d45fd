-- settle: job ARGV[1] is over; release the jobs that waited for it.
--
-- Only ours are looked at, that is those with a demand class. Returns the number of foreign ones, which RQ's own code
-- has to release, and then id and reason of each of ours that can now never run.
local parent = ARGV[1]
local at = now()
local set = job_key(parent) .. ':dependents'
local answer = {0}
for _, id in ipairs(call('SMEMBERS', set)) do
  local job = call('HMGET', job_key(id), 'status', 'origin', 'dayfly_queue')
  if not job[1] or (job[3] and job[1] ~= 'deferred') then
    call('SREM', set, id)
  elseif not job[3] then
    answer[1] = answer[1] + 1
  else
    local verdict = dependencies(id)
    if verdict == 'met' then
      call('SREM', set, id)
      call('ZREM', RQ .. ':deferred:' .. job[2], id)
      release(id, job[2], at)
    elseif verdict ~= 'pending' then
      answer[#answer + 1] = id
      answer[#answer + 1] = verdict
    end
  end
end
return answer
