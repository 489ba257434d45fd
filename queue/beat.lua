-- beat: the client of a job is there. ARGV: id, seconds. Returns 0 when the job has no client's lease (any more).
if not call('ZSCORE', OWN .. ':clients', ARGV[1]) then return 0 end
call('ZADD', OWN .. ':clients', text(now() + tonumber(ARGV[2])), ARGV[1])
return 1
