"""Coupons and redemptions as their holders and merchants see them, before they are spelled on the wire."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DEFAULT_HOLD_MS: Final = 15 * 60_000
"""How long a reservation lasts unless the request says otherwise."""
MAX_HOLD_MS: Final = 24 * 3_600_000
MAX_ATTEMPTS: Final = 1_000
"""How often one coupon may be reserved or redeemed again after release or rollback."""


class CouponStatus(StrEnum):
    """What a coupon is good for at this moment."""

    ISSUED = "issued"
    RESERVED = "reserved"
    REDEEMED = "redeemed"
    EXPIRED = "expired"
    DEACTIVATED = "deactivated"


class RedemptionStatus(StrEnum):
    """How far a redemption came."""

    RESERVED = "reserved"
    COMMITTED = "committed"
    RELEASED = "released"
    ROLLED_BACK = "rolled_back"


@dataclass(frozen=True, slots=True)
class Coupon:
    """One coupon as it stands by the store's clock."""

    shard: int
    sequence: int
    user_id: str
    status: CouponStatus
    issued_at_ms: int
    starts_at_ms: int
    expires_at_ms: int
    drawn_amount: int | None = None
    """What was drawn from the pot of a red envelope."""


@dataclass(slots=True)
class Redemption:
    """One redemption as it stands; `hold_expires_at_ms` matters while it is reserved. Not frozen, as `Issued`."""

    shard: int
    sequence: int
    attempt: int
    merchant_id: str
    order_id: str
    status: RedemptionStatus
    discount_amount: int
    at_ms: int
    hold_expires_at_ms: int | None


@dataclass(frozen=True, slots=True)
class Counters:
    """A campaign's ledger in coupons and money, summed over its shards."""

    issued: int
    outstanding: int
    reserved: int
    redeemed: int
    expired: int
    deactivated: int
    budget_committed: int

    @property
    def conservation_error(self) -> int:
        """Coupons issued minus the sum of their states: 0, always."""
        return self.issued - (self.outstanding + self.reserved + self.redeemed + self.expired + self.deactivated)


@dataclass(frozen=True, slots=True)
class Amounts:
    """The same ledger in money: what the coupons of each state may cost at most, in minor units."""

    issued: int
    outstanding: int
    reserved: int
    redeemed: int
    expired: int
    deactivated: int

    @property
    def liability(self) -> int:
        """What the coupons that can still be used may cost at most."""
        return self.outstanding + self.reserved

    def conservation_error(self, committed: int) -> int:
        """How far the money is from adding up, and from what the budget holds as committed: 0, always."""
        live = self.outstanding + self.reserved + self.redeemed
        return abs(self.issued - (live + self.expired + self.deactivated)) + abs(committed - live)
