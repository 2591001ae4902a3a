"""What an extension says: until when, for whom and by whom; and the outages that add to a coupon's time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.domain.campaign import Campaign

LOCAL: Final = "local"
"""Who acts where nobody has to show a key."""
MAX_SCOPE_USERS: Final = 200
MAX_OUTAGES: Final = 1_000
MAX_OUTAGE_DAYS: Final = 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Whom an extension concerns; what is None narrows nothing down. `to` and `before` are the first instants outside.

    A coupon is a merchant's when it was last reserved or redeemed there.
    """

    issued_from_ms: int | None = None
    issued_to_ms: int | None = None
    expiring_before_ms: int | None = None
    user_ids: tuple[str, ...] | None = None
    merchant_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """An extension as its actor wants it: all coupons, or those in `scope`, are valid until `until_ms` at least."""

    until_ms: int
    reason: str
    actor: str = LOCAL
    include_expired: bool = False
    scope: Scope | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outage:
    """Redemption was down from `from_ms` on, until `to_ms`; numbered from 1 in the order in which it was recorded.

    Where a campaign stops the clock, every coupon that was valid at any time meanwhile is valid longer by its length.
    """

    number: int
    from_ms: int
    to_ms: int
    reason: str
    actor: str = LOCAL

    @property
    def length_ms(self) -> int:
        """What it adds to a coupon's time."""
        return self.to_ms - self.from_ms


def lost_time(campaign: Campaign, outages: Sequence[Outage]) -> list[Outage]:
    """The outages by which the campaign's coupons are to be valid for longer: those since its creation, by its rule."""
    return [outage for outage in outages if campaign.stop_the_clock and outage.to_ms > campaign.created_at_ms]
