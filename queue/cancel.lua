-- cancel: ask for a job's end. ARGV: id, 'cancel' or 'kill' (without grace), the reason's word.
--
-- A job that runs is flagged and its worker is told; the flag holds even if the message is lost. Returns the words
-- missing, finished, flagged; or unstarted, and then the caller ends it with conclude.lua.
local id, word, reason = unpack(ARGV)
local job = call('HMGET', job_key(id), 'status', 'worker_name', 'dayfly_cancel')
local status = job[1]
if not status then return 'missing' end
if status == 'finished' or status == 'failed' or status == 'stopped' or status == 'canceled' then return 'finished' end
if status ~= 'started' then return 'unstarted' end
-- `kill` is not taken back by a later, milder word; the first reason stays
if job[3] ~= 'kill' then call('HSET', job_key(id), 'dayfly_cancel', word) end
if reason ~= '' then call('HSETNX', job_key(id), 'dayfly_cancel_reason', reason) end
if job[2] and job[2] ~= '' then call('PUBLISH', OWN .. ':worker:' .. job[2], id) end
return 'flagged'
