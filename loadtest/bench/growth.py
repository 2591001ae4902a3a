"""Why: coupons must not grow dearer as a campaign grows: what one costs is weighed in a young campaign and a grown one.

Each has a Tidegate of its own, and they take turns: what slows the machine down for a while slows both.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from loadtest.bench.campaigns import open_campaign
from loadtest.bench.samples import Growth
from loadtest.bench.store_room import StoreRoom
from loadtest.bench.systems import Tidegate
from loadtest.bench.tally import disagreements
from service.cli.failures import CommandError, ExitCode

CAMPAIGN: Final = "bench-growth"
EARLY: Final = 100_000
STRETCHES: Final = 10
BATCH: Final = 32
"""As many as come together over 64 connections: larger batches share more, and would flatter."""
STRETCH: Final = 10_240
"""Coupons over which the store's CPU time is taken: whole batches."""
STRETCHED: Final = STRETCHES * STRETCH
TOLD_EVERY: Final = 256_000
FEWEST: Final = EARLY + STRETCHED

Tell = Callable[[int], None]
"""Told how many coupons there are."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A Tidegate whose campaign is weighed, and the room that issues its coupons."""

    service: Tidegate
    room: StoreRoom

    def fill(self, coupons: int, tell: Tell) -> None:
        """Issue so many coupons, one a user."""
        for begin in range(0, coupons, TOLD_EVERY):
            self.room.issue(CAMPAIGN, begin, min(TOLD_EVERY, coupons - begin), BATCH)
            tell(min(begin + TOLD_EVERY, coupons))

    def stretch_us(self, first: int) -> float:
        """The store's CPU time for each of the next coupons, in microseconds."""
        before_us = self.service.store.cpu_us()
        self.room.issue(CAMPAIGN, first, STRETCH, BATCH)
        return (self.service.store.cpu_us() - before_us) / STRETCH

    def check(self, campaign_id: str, coupons: int) -> None:
        """Raise CommandError unless exactly so many of the campaign's were issued."""
        tally = self.service.system.tally
        assert tally is not None
        seen = tally(campaign_id)
        if seen.issued != coupons or list(disagreements(seen)):
            raise CommandError(f"{coupons:,} coupons were issued, and the ledger says {seen}", ExitCode.REFUSED)


def weigh(young: Scale, grown: Scale, coupons: int, tell: Tell) -> Growth:
    """Issue that many coupons, and return what they cost. Raises StoreError or CommandError."""
    early, late = EARLY - STRETCHED // 2, coupons - STRETCHED
    for scale in (young, grown):
        open_campaign(scale.service.remote, CAMPAIGN, max_coupons=coupons)
    store = grown.service.store
    empty_bytes, empty_resident_bytes = store.memory_bytes(), store.resident_bytes()
    young.fill(early, tell)
    grown.fill(late, tell)
    early_us, late_us = [], []
    with ExitStack() as undisturbed:
        for scale in (young, grown):
            undisturbed.enter_context(scale.service.store.without_rewrites())
        for passed in range(0, STRETCHED, STRETCH):
            early_us.append(young.stretch_us(early + passed))
            late_us.append(grown.stretch_us(late + passed))
    store.await_rewrite()
    young.check(CAMPAIGN, early + STRETCHED)
    grown.check(CAMPAIGN, coupons)
    allocated = (store.memory_bytes() - empty_bytes) / coupons
    resident = (store.resident_bytes() - empty_resident_bytes) / coupons
    return Growth(coupons, EARLY, BATCH, allocated, resident, early_us, late_us)
