-- reconcile: put classes into the index again where RQ's own code has touched their lists (released dependents,
-- `rq requeue`, deleted jobs). ARGV: names of classes. Returns how many hold jobs.
local count = 0
for _, class in ipairs(ARGV) do
  if index(class) then
    count = count + 1
    call('PUBLISH', OWN .. ':wake:' .. queue_of(class), class)
  end
end
return count
