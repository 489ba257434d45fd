-- adopt: move a job of a plain RQ producer from the list it was put into to the list of its class.
-- ARGV: queue, id, class, SHA-1 of the payload that was checked, RQ's timeout, the options of stamp() as JSON.
--
-- Compare and move: nothing happens when somebody else has taken the job or changed its payload since it was looked
-- at, and 0 is returned.
local queue, id, class, digest, timeout = unpack(ARGV)
local key = job_key(id)
local payload = call('HGET', key, 'data')
if not payload or redis.sha1hex(payload) ~= digest then return 0 end
if call('LREM', list_key(queue), 1, id) == 0 then return 0 end
local at = now()
stamp(id, class, cjson.decode(ARGV[6]), at)
call('HSET', key, 'timeout', timeout, 'result_ttl', RETAIN, 'failure_ttl', RETAIN)
call('PERSIST', key)
release(id, class, at)
return 1
