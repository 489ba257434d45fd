-- overdue: what has run out. ARGV: seconds of a lease, the server's run id.
--
-- Leases count only once the server has been answering for one whole lease: while it was away nobody could renew.
-- It was away when its run id has changed, or when no reaper could ask for as long as a lease lasts (a frozen server,
-- a cut network). Returns expired executions, jobs whose client has gone, jobs past their queue_timeout.
local lease, run_id = tonumber(ARGV[1]), ARGV[2]
local at = now()
local key = OWN .. ':redis'
local known = call('HMGET', key, 'run_id', 'since', 'asked')
local since = tonumber(known[2] or '') or at
if known[1] ~= run_id or at - tonumber(known[3] or '0') > lease then since = at end
call('HSET', key, 'run_id', run_id, 'since', text(since), 'asked', text(at))
local function until_now(name)
  return call('ZRANGEBYSCORE', OWN .. ':' .. name, 0, text(at), 'LIMIT', 0, 200)
end
local is_settled = at - since >= lease
return {is_settled and until_now('leases') or {}, is_settled and until_now('clients') or {}, until_now('deadlines')}
