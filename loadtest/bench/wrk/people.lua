-- wrk plays the people; loadtest/bench/people.py says what they wish.
-- Arguments: issue <path> <first user> <how many users, then the first again> <what their keys begin with> <steps>
--              (from one user to the next)
--            redeem <file of coupon codes, one a line> <what the order ids begin with>
--            crowd <path> <users> <collectors, one of whom makes every 50th wish>
-- At the end one line of JSON says how it went.
local asked, next_request = 0, nil

local function post(path, headers, body)
  return "POST " .. path .. " HTTP/1.1\r\nHost: " .. wrk.host .. "\r\nContent-Type: application/json\r\n" .. headers
    .. "Content-Length: " .. #body .. "\r\n\r\n" .. body
end

local function wish(path, user, key)
  return post(path, "Idempotency-Key: " .. key .. "\r\n", '{"user_id":"' .. user .. '"}')
end

local function issues(path, first, users, key, steps)
  return function()
    local user = string.format("%08d", first + asked * steps % users)
    return wish(path, user, key .. user)
  end
end

local function crowd(path, users, collectors)
  return function()
    local user = asked % 50 == 0 and "c" .. asked / 50 % collectors or string.format("%08d", asked % users)
    return wish(path, user, "k" .. asked)
  end
end

local function redemptions(codes, order)
  local code
  return function()
    -- Past the last line the last code comes again, is refused, and so does not go unnoticed.
    code = codes() or code
    return post("/v1/coupons/" .. code .. "/redemptions", "",
      '{"merchant_id":"merchant-' .. asked % 1000 .. '","order_id":"' .. order .. asked .. '"}')
  end
end

function init(arguments)
  if arguments[1] == "issue" then
    next_request = issues(arguments[2], tonumber(arguments[3]), tonumber(arguments[4]), arguments[5],
      tonumber(arguments[6]))
  elseif arguments[1] == "crowd" then
    next_request = crowd(arguments[2], tonumber(arguments[3]), tonumber(arguments[4]))
  else
    next_request = redemptions(io.lines(arguments[2]), arguments[3])
  end
end

function request()
  local text = next_request()
  asked = asked + 1
  return text
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format('\n{"requests":%d,"seconds":%.6f,"refused":%d,"broken":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
