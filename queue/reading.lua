-- reading: a follower says up to which byte it has read a job's log. ARGV: id, the follower's token, the byte.
local key = OWN .. ':readers:' .. ARGV[1]
call('HSET', key, ARGV[2], ARGV[3] .. ' ' .. text(now()))
call('EXPIRE', key, 60)
return 1
