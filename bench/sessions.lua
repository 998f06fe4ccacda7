-- wrk with many sessions: a cookie for each request, drawn unevenly, as few visitors send most requests.
-- Arguments: the file of keys, one a line (none: no cookie), and the exponent of Zipf's law (0 draws evenly).

local DRAWS = 131072

local requests, draws, place = {}, {}, 0

function init(args)
  for key in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", nil, { ["Cookie"] = "sessionid=" .. key })
  end
  if #requests == 0 then
    requests[1] = wrk.format("GET")
  end
  local sums, sum = {}, 0
  for rank = 1, #requests do
    sum = sum + rank ^ -tonumber(args[2])
    sums[rank] = sum
  end
  -- The same draws for every contender.
  math.randomseed(1)
  for n = 1, DRAWS do
    local wanted, low, high = math.random() * sum, 1, #requests
    while low < high do
      local middle = math.floor((low + high) / 2)
      if sums[middle] < wanted then low = middle + 1 else high = middle end
    end
    draws[n] = low
  end
end

function request()
  place = place % DRAWS + 1
  return requests[draws[place]]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%.6f,"p50_us":%d,"p99_us":%d,"p999_us":%d,"not_200":%d,"unanswered":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    latency:percentile(99.9), errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
