"""Limits beyond stock and the cap of each user: by the day, by the order, by the merchant, and what users may earn."""

from dataclasses import dataclass
from typing import Final

MAX_COUPONS_PER_ORDER: Final = 100


@dataclass(frozen=True, slots=True)
class DailyLimits:
    """How many coupons are issued in a calendar day of the campaign's zone, in all and to one user; None, any number.

    The store knows no zones, so the zone's `offsets` come along, as in `validity.zone_offsets`.
    """

    max_coupons: int | None
    max_coupons_per_user: int | None
    offsets: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class HolderLimits:
    """How many coupons one order may hold, and how many redemptions and reservations one merchant; None, any number.

    Which of the two there are is fixed at creation, since the store counts from the first redemption on.
    """

    per_order: int | None
    per_merchant: int | None
