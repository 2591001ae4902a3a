"""What a shard's scripts need to know of a campaign, in the form they read it."""

import msgpack

from service.domain.campaign import Campaign, shard_limits
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
        "amount": campaign.benefit.amount,
        "min_order_amount": campaign.benefit.min_order_amount,
        "max_coupons": limits.max_coupons,
        "max_coupons_per_user": campaign.max_coupons_per_user,
        "budget": limits.budget,
        "issue_rate": _rate(limits.issue_rate),
        "user_rate": _rate(campaign.user_rate),
        "merchant_rate": _rate(limits.merchant_rate),
        "redemptions_per_second_milli": limits.redemptions_per_second_milli,
        "validity": pack_validity(campaign.validity, shard),
    }
    packed: bytes = msgpack.packb(
        {name: value for name, value in fields.items() if value is not None},
        use_bin_type=False,  # Lua's cmsgpack knows text only, and takes any bytes for it.
    )
    return packed


def _rate(rate: Rate | None) -> dict[str, int] | None:
    return None if rate is None else {"per_second_milli": rate.per_second_milli, "burst": rate.burst}
