-- The issue call in nginx: one EVALSHA a request over a pool of kept connections.
local cjson = require "cjson.safe"
local redis = require "nginx.redis"

local POOL, IDLE_MS, TIMEOUT_MS = 512, 75000, 1000
local MAX_KEY_BYTES = 255
local USER_ID = [[\A[A-Za-z0-9][A-Za-z0-9._~:@+-]{0,63}\z]]
local STATUSES = { unknown_campaign = 404, invalid_request = 422, idempotency_key_required = 400, rate_limited = 429,
  issuance_paused = 503, store_unavailable = 503 }

local socket = "unix:" .. os.getenv "STORE_SOCKET"
local source
do
  local file = assert(io.open(os.getenv "ISSUE_SCRIPT"))
  source = file:read "*a"
  file:close()
end

local script
local campaigns = {}

local function moment(instant_ms, campaign)
  local seconds = math.floor(instant_ms / 1000)
  return os.date("!%Y-%m-%dT%H:%M:%S", seconds + campaign.offset_s)
    .. string.format(".%03d", instant_ms % 1000) .. campaign.offset
end

local function refuse(reason, retry_after_ms)
  local status = STATUSES[reason] or 409
  ngx.status = status
  ngx.header["Content-Type"] = "application/problem+json"
  if retry_after_ms then
    ngx.header["Retry-After"] = math.ceil(retry_after_ms / 1000)
  end
  local body = cjson.encode { type = "/problems/" .. string.gsub(reason, "_", "-"), status = status, reason = reason }
  ngx.header["Content-Length"] = #body
  ngx.print(body)
end

local function campaign_of(store, campaign_id)
  local campaign = campaigns[campaign_id]
  if not campaign then
    local found = store:hmget("campaign:{" .. campaign_id .. "}", "code_prefix", "amount", "currency",
      "min_order_amount", "utc_offset_s", "utc_offset", "expires_at")
    if not found or found[1] == ngx.null then
      return nil
    end
    campaign = { prefix = found[1] .. "-", offset_s = tonumber(found[5]), offset = found[6],
      benefit = cjson.encode { kind = "amount", amount = tonumber(found[2]), currency = found[3],
        min_order_amount = tonumber(found[4]) } }
    campaigns[campaign_id] = campaign
  end
  return campaign
end

local function run(store, ...)
  if script then
    local answer, problem = store:evalsha(script, ...)
    if answer or not string.find(problem, "NOSCRIPT", 1, true) then
      return answer
    end
  end
  script = store:script("load", source)
  return script and store:evalsha(script, ...)
end

local function user_in(body)
  local fields = cjson.decode(body)
  local user_id = type(fields) == "table" and fields.user_id
  if type(user_id) ~= "string" or not ngx.re.find(user_id, USER_ID, "jo") or next(fields, next(fields)) then
    return nil
  end
  return user_id
end

local function answer()
  local key, campaign_id = ngx.var.http_idempotency_key, ngx.var.campaign_id
  if not key or key == "" or #key > MAX_KEY_BYTES then
    return refuse "idempotency_key_required"
  end
  ngx.req.read_body()
  local user_id = user_in(ngx.req.get_body_data() or "")
  if not user_id then
    return refuse "invalid_request"
  end

  local store = redis:new()
  store:set_timeout(TIMEOUT_MS)
  if not store:connect(socket) then
    return refuse "store_unavailable"
  end
  local campaign = campaign_of(store, campaign_id)
  if not campaign then
    store:set_keepalive(IDLE_MS, POOL)
    return refuse "unknown_campaign"
  end
  local tag = ":{" .. campaign_id .. "}"
  local coupons, code = "coupon" .. tag .. ":", campaign.prefix .. string.sub(ngx.var.request_id, 1, 16)
  local result = run(store, 4, "campaign" .. tag, "user" .. tag .. ":" .. user_id, coupons .. code, "events" .. tag,
    key, code, user_id, coupons)
  if not result then
    return refuse "store_unavailable"
  end
  store:set_keepalive(IDLE_MS, POOL)

  local word = result[1]
  if word ~= "issued" and word ~= "replayed" then
    return refuse(word, result[2])
  end
  local issued_at = moment(tonumber(result[3]), campaign)
  local body = '{"code":"' .. result[2] .. '","campaign_id":"' .. campaign_id .. '","user_id":"' .. user_id
    .. '","status":"issued","benefit":' .. campaign.benefit .. ',"issued_at":"' .. issued_at .. '","starts_at":"'
    .. issued_at .. '","expires_at":"' .. moment(tonumber(result[4]), campaign) .. '"}'
  ngx.status = 201
  ngx.header["Content-Type"] = "application/json"
  ngx.header["Content-Length"] = #body
  if word == "replayed" then
    ngx.header["Idempotency-Replayed"] = "true"
  end
  ngx.print(body)
end

return { answer = answer }
