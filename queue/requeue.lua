-- requeue: an attempt is over and the job waits again, at the front of its class, where its age puts it.

-- `counts`: 1 when the attempt is one of those that the job may have, 0 when it is ours to repeat. `attempt` is its
-- story as JSON, '' for none; `pause` seconds before the next one.
-- Returns 1; 0 when the fence refused; 2 when the job's cancel was asked for, and then nothing is changed.
local function requeue(worker, id, class, execution, fence, counts, attempt, pause)
  local key = job_key(id)
  if call('HEXISTS', key, 'dayfly_cancel') == 1 and call('HGET', key, 'dayfly_fence') == fence then return 2 end
  if not is_held(id, class, execution, fence) then return 0 end
  local at = now()
  let_go(id, class, execution, worker)
  if counts == '0' then call('HINCRBY', key, 'dayfly_attempt', -1) end
  if attempt ~= '' then
    local before = call('HGET', key, 'dayfly_attempts')
    call('HSET', key, 'dayfly_attempts', (before and before .. '\n' or '') .. attempt)
  end
  call('HSET', key, 'ended_at', iso(at), 'last_heartbeat', iso(at))
  if tonumber(pause) > 0 then delay(id, class, at + tonumber(pause)) else push(id, class, at, true) end
  return 1
end

return requeue(unpack(ARGV))
