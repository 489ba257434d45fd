-- reserve: take a `unique` key for a job that is about to be submitted. ARGV: key, id.
--
-- Returns the id that holds it: another one while that job is not finished. The minute is for a submission that never
-- follows; enqueue.lua makes the key last.
local key = OWN .. ':unique:' .. ARGV[1]
local holder = call('GET', key)
if holder and holder ~= ARGV[2] then
  local status = call('HGET', job_key(holder), 'status')
  local is_being_submitted = not status and call('TTL', key) > 0
  if is_being_submitted or (status and status ~= 'finished' and status ~= 'failed' and status ~= 'stopped'
      and status ~= 'canceled') then
    return holder
  end
end
call('SET', key, ARGV[2], 'EX', 60)
return ARGV[2]
