"""Limits by the day, the order and the merchant, between the wire's words and the domain's values."""

from typing import Any, Final

from service.api.campaign_wire import CampaignChange, CampaignRequest
from service.api.problems import Refused, invalid
from service.domain.campaign import Campaign
from service.domain.limits import DailyLimits, HolderLimits
from service.domain.validity import zone_offsets

DAILY: Final = {"max_coupons_per_day": "max_coupons", "max_coupons_per_user_per_day": "max_coupons_per_user"}
HOLDERS: Final = {"max_coupons_per_order": "per_order", "max_redemptions_per_merchant": "per_merchant"}
LIMIT_FIELDS: Final = {*DAILY, *HOLDERS}


def daily_limits(given: CampaignRequest | CampaignChange, timezone: str, from_ms: int) -> DailyLimits | None:
    """The limits by the day that a request names, if any; days are those of the zone."""
    if given.max_coupons_per_day is None and given.max_coupons_per_user_per_day is None:
        return None
    offsets = zone_offsets(timezone, from_ms)
    return DailyLimits(given.max_coupons_per_day, given.max_coupons_per_user_per_day, offsets)


def holder_limits(given: CampaignRequest | CampaignChange) -> HolderLimits | None:
    """The limits by the order and the merchant that a request names, if any."""
    if given.max_coupons_per_order is None and given.max_redemptions_per_merchant is None:
        return None
    return HolderLimits(given.max_coupons_per_order, given.max_redemptions_per_merchant)


def changed_limits(old: Campaign, change: CampaignChange) -> dict[str, Any]:
    """The limits after a change. Raises Refused where it sets a limit that nothing was counted for, or removes one."""
    held = limits_body(old)
    given = {name: getattr(change, name) for name in change.model_fields_set & LIMIT_FIELDS}
    for name in HOLDERS:
        if name in given and (held[name] is None) != (given[name] is None):
            message = "can be changed, but not set or removed once the campaign exists"
            raise Refused(invalid([{"loc": [name], "msg": message}]))
    wanted = change.model_copy(update=held | given)
    return {
        "daily_limits": daily_limits(wanted, old.validity.timezone, old.created_at_ms),
        "holder_limits": holder_limits(wanted),
    }


def limits_body(campaign: Campaign) -> dict[str, int | None]:
    """The limits by their names on the wire."""
    daily, holders = campaign.daily_limits, campaign.holder_limits
    return {
        **{name: getattr(daily, field, None) for name, field in DAILY.items()},
        **{name: getattr(holders, field, None) for name, field in HOLDERS.items()},
    }
