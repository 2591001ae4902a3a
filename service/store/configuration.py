"""What a shard's scripts need to know of a campaign, in the form they read it."""

from typing import Any

import msgpack

from service.domain.benefit import Amount, Benefit, Percent, RedEnvelope
from service.domain.campaign import Campaign, ShardLimits, shard_limits
from service.domain.money import Rate
from service.store.validity import pack_validity


def pack_configuration(campaign: Campaign, shard: int) -> bytes:
    """The campaign's configuration for one shard, as MessagePack; what does not apply is left out."""
    limits = shard_limits(campaign, shard)
    window = campaign.issue_window
    fields = {
        "version": campaign.version,
        "status": campaign.status.value,
        "starts_at": window and window.starts_at_ms,
        "ends_at": window and window.ends_at_ms,
        **_benefit(campaign.benefit, limits),
        "max_coupons": limits.max_coupons,
        "max_coupons_per_user": campaign.max_coupons_per_user,
        "max_quota_per_user": campaign.max_quota_per_user,
        "daily": _daily(campaign, limits),
        "holder_limits": _holders(campaign, limits),
        "budget": limits.budget,
        "issue_rate": _rate(limits.issue_rate),
        "user_rate": _rate(campaign.user_rate),
        "merchant_rate": _rate(limits.merchant_rate),
        "redemptions_per_second_milli": limits.redemptions_per_second_milli,
        "validity": pack_validity(campaign.validity, shard),
    }
    packed: bytes = msgpack.packb(
        _given(fields),
        use_bin_type=False,  # Lua's cmsgpack knows text only, and takes any bytes for it.
    )
    return packed


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _benefit(benefit: Benefit, limits: ShardLimits) -> dict[str, Any]:
    """`amount` is the most that each coupon can cost; where amounts are drawn, each record has its own."""
    common = {"min_order_amount": benefit.min_order_amount}
    match benefit:
        case Amount(amount):
            return common | {"amount": amount}
        case Percent(percent, max_amount):
            return common | {"amount": max_amount, "percent": percent}
        case RedEnvelope():
            return common | {"pot": limits.pot, "min_share": benefit.min_share}


def _daily(campaign: Campaign, limits: ShardLimits) -> dict[str, Any] | None:
    daily = campaign.daily_limits
    return (
        None
        if daily is None
        else _given(
            {
                "max_coupons": limits.max_coupons_per_day,
                "max_coupons_per_user": daily.max_coupons_per_user,
                "offsets": [number for offset in daily.offsets for number in offset],
            }
        )
    )


def _holders(campaign: Campaign, limits: ShardLimits) -> dict[str, Any] | None:
    """Orders are spread over as many buckets as users are: that number never changes."""
    holders = campaign.holder_limits
    return (
        None
        if holders is None
        else _given(
            {
                "per_order": holders.per_order,
                "per_merchant": limits.max_redemptions_per_merchant,
                "order_buckets": campaign.user_buckets,
            }
        )
    )


def _rate(rate: Rate | None) -> dict[str, int] | None:
    return None if rate is None else {"per_second_milli": rate.per_second_milli, "burst": rate.burst}
