-- Whom an extension concerns: its own rule and its scope, whose members narrow it down; for lost time, lost_from and
-- lost_to, within which a coupon must have been valid. `expires_at` is the coupon's before the extension.
-- Uses     user
local function concerns(state, extension, scope, record, expires_at)
  if scope.lost_from then
    return expires_at > scope.lost_from and record.starts_at < scope.lost_to
  end
  local redemption = record.redemption
  return (extension.include_expired or expires_at > extension.made_at)
    and (not scope.issued_from or record.issued_at >= scope.issued_from)
    and (not scope.issued_to or record.issued_at < scope.issued_to)
    and (not scope.expiring_before or expires_at < scope.expiring_before)
    and (not scope.user_ids or scope.user_ids[user_of(state, record)] == true)
    and (not scope.merchant_id or (redemption ~= nil and redemption.merchant == scope.merchant_id))
end

-- A scope as it travels, with its users in a form that can be asked; nothing narrows nothing down.
local function unpack_scope(packed)
  local scope = packed and packed ~= '' and cmsgpack.unpack(packed) or {}
  if scope.user_ids then
    local users = {}
    for _, user in ipairs(scope.user_ids) do
      users[user] = true
    end
    scope.user_ids = users
  end
  return scope
end
