-- The load for wrk: one operation over a set of accounts, every answer checked, every success counted.
--
--   wrk -t1 -c64 -d4s -s bench/load.lua http://127.0.0.1:8080 -- debit 100 3
--
-- Arguments: debit | deposit | balance, the number of accounts, the seconds that count. wrk itself runs for a little
-- longer: after those seconds only health checks are sent, so that every call that was sent is also answered and the
-- sums are exact. `done` prints one line of JSON.
local ffi = require("ffi")
ffi.cdef [[ struct bench_timespec { long s; long ns; }; int clock_gettime(int clock, struct bench_timespec *time); ]]
local time = ffi.new("struct bench_timespec")
local MONOTONIC = 1

local function now()
  ffi.C.clock_gettime(MONOTONIC, time)
  return tonumber(time.s) + tonumber(time.ns) / 1e9
end

local ANSWER = {
  debit = '^{"ok":true,"balance":%d+}$',
  deposit = '^%d+$',
  balance = '^%d+$',
}
local threads = {}

function setup(thread)
  thread:set("number", #threads + 1)
  table.insert(threads, thread)
end

function init(arguments)
  operation, count, seconds = arguments[1], tonumber(arguments[2]), tonumber(arguments[3])
  pattern = ANSWER[operation]
  sent, good, refused, bad, first_bad = 0, 0, 0, 0, ""
  started, last, finish = 0, 0, 0
  rehearsed = number ~= 1 -- wrk asks the first thread for one request that it never sends
  idle = wrk.format("GET", "/healthz")
  requests = {}
  wrk.headers["Content-Type"] = "application/json"
  local body = operation ~= "balance" and '{"amount":1}' or nil
  for i = 1, count do
    local path = string.format("/v1/actors/ACCOUNT/bench-%d-%d/%s", count, i - 1, operation)
    requests[i] = wrk.format("POST", path, nil, body)
  end
  math.randomseed(number * 7919 + count)
end

function request()
  if not rehearsed then
    rehearsed = true
    return idle
  end
  local at = now()
  if started == 0 then
    started, finish = at, at + seconds
  end
  if at >= finish then
    return idle
  end
  sent = sent + 1
  return requests[math.random(count)]
end

function response(status, _, body)
  if status == 200 and body:find(pattern) then
    good = good + 1
    last = now()
  elseif status == 200 and body:find('^{"ok":false,') then
    refused = refused + 1
  elseif status ~= 200 or body ~= "ok\n" then
    bad = bad + 1
    if first_bad == "" then
      first_bad = status .. " " .. body:sub(1, 200)
    end
  end
end

function done(summary)
  local total = { sent = 0, good = 0, refused = 0, bad = 0 }
  local span, first_bad = 0, ""
  for _, thread in ipairs(threads) do
    for name, value in pairs(total) do
      total[name] = value + thread:get(name)
    end
    span = math.max(span, thread:get("last") - thread:get("started"))
    if first_bad == "" then
      first_bad = thread:get("first_bad")
    end
  end
  local errors = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format(
    'RESULT {"sent": %d, "good": %d, "refused": %d, "bad": %d, "errors": %d, "seconds": %.6f, '
      .. '"first_bad": "%s"}\n',
    total.sent, total.good, total.refused, total.bad, errors, span, (first_bad:gsub('["\\%c]', " "))))
end
