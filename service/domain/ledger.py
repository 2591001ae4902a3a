"""The ledger rebuilt from events alone, so that an audit can hold it against what the store says."""

from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from service.domain.coupon import Counters, CouponStatus
from service.domain.events import STATUS_AFTER, Event

STATUSES: Final = tuple(CouponStatus)
"""A record says its status by its place here, counted from 1."""
NO_COUPON: Final = 0
NOT_DRAWN: Final = 0
_NUMBER_OF: Final = {status: number for number, status in enumerate(STATUSES, start=1)}
_CLAIMING: Final = (CouponStatus.ISSUED, CouponStatus.RESERVED, CouponStatus.REDEEMED)
"""While a coupon is one of these, its worth is committed."""

Said = tuple[int, int]
"""A coupon's status by its number, and what it has drawn."""


class LedgerBroken(Exception):
    """The events contradict themselves: one is missing, or tells of a coupon that was never issued."""


class ShardLedger:
    """One shard's coupons as the events tell them: nine bytes a coupon.

    `worth` is what a coupon is worth, in minor units, whose event does not say it.
    """

    def __init__(self, worth: int) -> None:
        self._worth = worth
        self._statuses = bytearray()
        self._worths = array("q")
        self._is_drawn = False

    def apply(self, event: Event) -> None:
        """Take in the next event. Raises LedgerBroken, and is of no more use then."""
        if event.type == "coupon.issued":
            self._issue(event)
            return
        status = STATUS_AFTER.get(event.type)
        if status is None:
            return
        for sequence in event.coupons:
            if sequence >= self.issued:
                raise LedgerBroken(f"event {event.id} names coupon {sequence}, which was not issued before")
            self._statuses[sequence] = _NUMBER_OF[status]

    @property
    def issued(self) -> int:
        """How many coupons the events have issued."""
        return len(self._statuses)

    def counters(self) -> Counters:
        """The counters that the events add up to."""
        numbers = (self._statuses.count(number) for number in _NUMBER_OF.values())
        return Counters(*(self.issued, *numbers, self._committed()))

    def differing(
        self, first: int, statuses: Sequence[int], amounts: Sequence[int]
    ) -> Iterator[tuple[int, Said, Said]]:
        """From coupon `first` on, each of which the record says something else: sequence, what is told and recorded.

        `amounts` are what records have drawn from a pot; empty where none has.
        """
        count, last = len(statuses), first + len(statuses)
        told = self._statuses[first:last].ljust(count, bytes([NO_COUPON]))
        told_amounts = self._worths[first:last] if self._is_drawn else array("q")
        told_amounts.extend([NOT_DRAWN] * (count - len(told_amounts)))
        recorded_amounts = array("q", amounts or [NOT_DRAWN] * count)
        if told != bytes(statuses) or told_amounts != recorded_amounts:
            said = zip(told, told_amounts, strict=True)
            for offset, pair in enumerate(zip(said, zip(statuses, recorded_amounts, strict=True), strict=True)):
                if pair[0] != pair[1]:
                    yield first + offset, *pair

    def _issue(self, event: Event) -> None:
        sequences = list(event.coupons)
        first, count = sequences[0], len(sequences)
        if first != self.issued:
            raise LedgerBroken(f"event {event.id} issues coupon {first}, but {self.issued} is the next")
        self._statuses.extend(bytes([_NUMBER_OF[CouponStatus.ISSUED]]) * count)
        self._is_drawn = self._is_drawn or "amounts" in event.data
        worths = event.data.get("amounts") or [event.data.get("amount", self._worth)] * count
        if len(worths) != count:
            raise LedgerBroken(f"event {event.id} names {count} coupons and {len(worths)} amounts")
        self._worths.extend(worths)

    def _committed(self) -> int:
        claiming = {_NUMBER_OF[status] for status in _CLAIMING}
        return sum(worth for status, worth in zip(self._statuses, self._worths, strict=True) if status in claiming)
