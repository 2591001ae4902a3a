"""Why: coupons must not grow dearer as a campaign grows: what one costs the store is weighed at both ends."""

from collections.abc import Callable
from typing import Final

from loadtest.bench.campaigns import open_campaign
from loadtest.bench.samples import Growth
from loadtest.bench.store_room import StoreRoom
from loadtest.bench.stores import Store
from loadtest.bench.systems import Tidegate
from service.cli.failures import CommandError, ExitCode

CAMPAIGN: Final = "bench-growth"
EARLY: Final = 100_000
STRETCHES: Final = 5
STRETCH: Final = 20_480
"""Coupons over which the store's CPU time is taken: eighty whole batches."""
TOLD_EVERY: Final = 256_000
FEWEST: Final = EARLY + 3 * STRETCHES * STRETCH // 2

Tell = Callable[[int], None]
"""Told how many coupons there are."""


def weigh(service: Tidegate, room: StoreRoom, coupons: int, tell: Tell) -> Growth:
    """Issue that many coupons, one a user, and return what they cost. Raises StoreError or CommandError."""
    open_campaign(service.remote, CAMPAIGN, max_coupons=coupons)
    store = service.store
    empty_bytes = store.memory_bytes()
    stretched = STRETCHES * STRETCH
    _fill(room, 0, EARLY - stretched // 2, tell)
    early_us = _stretches(store, room, EARLY - stretched // 2)
    _fill(room, EARLY + stretched - stretched // 2, coupons - stretched, tell)
    late_us = _stretches(store, room, coupons - stretched)
    store.await_rewrite()
    tally = service.system.tally
    assert tally is not None
    seen = tally(CAMPAIGN)
    if not coupons == seen.issued == seen.records == seen.stock_taken or seen.conservation_error:
        raise CommandError(f"{coupons:,} coupons were issued, and the ledger says {seen}", ExitCode.REFUSED)
    return Growth(coupons, EARLY, (store.memory_bytes() - empty_bytes) / coupons, early_us, late_us)


def _fill(room: StoreRoom, first: int, last: int, tell: Tell) -> None:
    for begin in range(first, last, TOLD_EVERY):
        room.issue(CAMPAIGN, begin, min(TOLD_EVERY, last - begin))
        tell(min(begin + TOLD_EVERY, last))


def _stretches(store: Store, room: StoreRoom, first: int) -> list[float]:
    costs_us = []
    with store.without_rewrites():
        for begin in range(first, first + STRETCHES * STRETCH, STRETCH):
            before_us = store.cpu_us()
            room.issue(CAMPAIGN, begin, STRETCH)
            costs_us.append((store.cpu_us() - before_us) / STRETCH)
    return costs_us
