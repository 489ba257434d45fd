-- bounded: fields of hashes, for a worker. ARGV: how many names, the names, then keys.
--
-- HGETALL would bring whatever anybody has written. Returns for each key the values in the names' order; false for one
-- that is not there or is larger than a payload may be, and for all of a key that is no hash.
local count = tonumber(ARGV[1])
local answer = {}
for at = count + 2, #ARGV do
  local key, values = ARGV[at], {}
  for number = 1, count do
    local name = ARGV[number + 1]
    local _, value = guarded(function()
      return call('HSTRLEN', key, name) <= MAX_PAYLOAD and call('HGET', key, name)
    end)
    values[number] = type(value) == 'string' and value
  end
  answer[#answer + 1] = values
end
return answer
