"""Money and rates: the two quantities a campaign promises, kept as integers so that they add up exactly."""

from dataclasses import dataclass
from typing import Final

MAX_AMOUNT: Final = 10**14
"""The largest amount in minor units; it fits the 48 bits that a record has for it."""


MAX_COMMITTED: Final = 2**53 - 1
"""The most money that one campaign may promise in all: what the store's numbers count exactly."""


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in minor units (fen, cents) of an ISO 4217 currency."""

    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket: `per_second_milli` thousandths of a token flow in each second, at most `burst` tokens wait.

    A thousandth of a token a second is one micro-token a millisecond, so a bucket that counts micro-tokens refills
    in whole numbers and never loses a remainder.
    """

    per_second_milli: int
    burst: int


def share(total: int, parts: int, index: int) -> int:
    """The part of `total` that falls to `index` of `parts`; the parts differ by at most one and sum to `total`."""
    return total // parts + (index < total % parts)


def rate_share(rate: Rate | None, parts: int, index: int) -> Rate | None:
    """The part of a rate that falls to one shard; None, no limit, stays None."""
    if rate is None:
        return None
    return Rate(share(rate.per_second_milli, parts, index), share(rate.burst, parts, index))
