-- bounded: fields of jobs' hashes, for a worker. ARGV: how many names, the names, then ids.
--
-- HGETALL would bring whatever anybody has written. Returns for each id the values in the names' order; false for one
-- that is not there or is larger than a payload may be.
local count = tonumber(ARGV[1])
local answer = {}
for at = count + 2, #ARGV do
  local key, values = job_key(ARGV[at]), {}
  for number = 1, count do
    local name = ARGV[number + 1]
    values[number] = call('HSTRLEN', key, name) <= MAX_PAYLOAD and call('HGET', key, name)
  end
  answer[#answer + 1] = values
end
return answer
