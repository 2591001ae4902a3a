"""What a coupon is worth: an amount, a percentage with a maximum, or a share drawn from a pot.

The store applies these rules (`store/lua/fragments/benefit.lua`, `draw.lua`). Whatever must be rounded is rounded down,
in favour of the budget.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Amount:
    """A fixed amount of money off an order."""

    amount: int
    currency: str
    min_order_amount: int = 0
    kind: Literal["amount"] = "amount"

    @property
    def worst_case(self) -> int:
        """The most that one coupon can cost."""
        return self.amount

    def discount(self, order_amount: int | None) -> int:
        """What comes off an order: never more than the order itself, when its amount is known."""
        return self.amount if order_amount is None else min(self.amount, order_amount)


@dataclass(frozen=True, slots=True)
class Percent:
    """A percentage off an order, `max_amount` at most."""

    percent: int
    max_amount: int
    currency: str
    min_order_amount: int = 0
    kind: Literal["percent"] = "percent"

    @property
    def worst_case(self) -> int:
        """The most that one coupon can cost."""
        return self.max_amount

    def discount(self, order_amount: int) -> int:
        """What comes off an order, rounded down."""
        return min(self.max_amount, order_amount * self.percent // 100)


@dataclass(frozen=True, slots=True)
class RedEnvelope:
    """A `pot` that is drawn in so many random shares of `min_share` at least; the shares sum to it exactly."""

    pot: int
    shares: int
    min_share: int
    currency: str
    min_order_amount: int = 0
    kind: Literal["red_envelope"] = "red_envelope"

    @property
    def worst_case(self) -> int:
        """The most that one coupon can cost: all that the others need not have."""
        return self.pot - (self.shares - 1) * self.min_share


Benefit = Amount | Percent | RedEnvelope


def pot_share(benefit: RedEnvelope, first: int, shares: int) -> int:
    """The part of the pot for `shares` shares after the `first`: in proportion, and parts that follow on sum to it."""
    return benefit.pot * (first + shares) // benefit.shares - benefit.pot * first // benefit.shares
