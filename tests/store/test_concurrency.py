"""A crowd over many real connections, in batches of any size: all that was promised is given out, and no more."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import pytest
from redis.asyncio import Redis

from service.domain.money import Money
from service.domain.outcomes import (
    AlreadyRedeemed,
    Issued,
    IssueOutcome,
    PerUserLimit,
    Redeemed,
    RedeemOutcome,
    Replayed,
    SoldOut,
)
from service.store.client import connect
from service.store.coupons import CouponStore, RedeemRequest
from service.store.scripts import Scripts
from tests.store.desk import TURNABLE_CLOCK, Desk, Room

pytestmark = pytest.mark.anyio

CLIENTS: Final = 200
CONNECTIONS: Final = 8
LARGEST_BATCH: Final = 32
STOCK: Final = 5_000

Wish = tuple[str, str]


@asynccontextmanager
async def connections(url: str) -> AsyncIterator[list[CouponStore]]:
    """Doors of their own to the store."""
    async with AsyncExitStack() as stack:
        clients: list[Redis] = [connect(url, timeout_ms=10_000) for _ in range(CONNECTIONS)]
        for client in clients:
            stack.push_async_callback(client.aclose)
        yield [CouponStore(Scripts(client, TURNABLE_CLOCK)) for client in clients]


async def crowd(url: str, desk: Desk, wishes: Sequence[Wish], seed: int) -> list[tuple[Wish, IssueOutcome]]:
    """Each client takes the next few wishes, whosever they are, until none are left."""
    dice, waiting = random.Random(seed), list(wishes)
    dice.shuffle(waiting)
    answered: list[tuple[Wish, IssueOutcome]] = []

    async def client(store: CouponStore) -> None:
        while waiting:
            size = dice.randint(1, LARGEST_BATCH)
            batch, waiting[:size] = waiting[:size], []
            outcomes = await store.issue(desk.known, 0, [desk.wish(*wish) for wish in batch])
            answered.extend(zip(batch, outcomes, strict=True))

    async with connections(url) as stores:
        await asyncio.gather(*(client(stores[number % CONNECTIONS]) for number in range(CLIENTS)))
    assert len(answered) == len(wishes)
    return answered


def tally(answered: list[tuple[Wish, IssueOutcome]]) -> Counter[type]:
    return Counter(type(outcome) for _, outcome in answered)


async def exactly(desk: Desk, answered: list[tuple[Wish, IssueOutcome]], coupons: int) -> None:
    """So many coupons were given out, each with a code of its own, and the money agrees."""
    codes = {desk.known.codes.code(0, outcome.sequence) for _, outcome in answered if isinstance(outcome, Issued)}
    assert len(codes) == tally(answered)[Issued] == coupons
    counters = await desk.counters()
    assert (counters.issued, counters.budget_committed) == (coupons, coupons * desk.campaign.benefit.worst_case)


async def test_200_clients_at_a_stock_of_5000_get_exactly_5000(room: Room, store_url: str) -> None:
    desk = await room.open(max_coupons=STOCK)
    wishes = [(f"user {number}", "first") for number in range(STOCK + 1_000)]
    answered = await crowd(store_url, desk, wishes, seed=1)
    await exactly(desk, answered, STOCK)
    assert tally(answered)[SoldOut] == 1_000


async def test_a_budget_for_5000_is_spent_exactly(room: Room, store_url: str) -> None:
    desk = await room.open(budget=Money(STOCK * 2500 + 2499, "CNY"))
    wishes = [(f"user {number}", "first") for number in range(STOCK + 1_000)]
    await exactly(desk, await crowd(store_url, desk, wishes, seed=2), STOCK)


async def test_500_users_who_try_ten_times_get_three_each(room: Room, store_url: str) -> None:
    desk = await room.open(max_coupons=STOCK, max_coupons_per_user=3)
    wishes = [(f"user {number}", str(attempt)) for number in range(500) for attempt in range(10)]
    answered = await crowd(store_url, desk, wishes, seed=3)
    await exactly(desk, answered, 1_500)
    assert tally(answered)[PerUserLimit] == 3_500
    holders = Counter(user for (user, _), outcome in answered if isinstance(outcome, Issued))
    assert set(holders.values()) == {3}


async def test_every_request_sent_twice_is_answered_twice_with_one_coupon(room: Room, store_url: str) -> None:
    desk = await room.open(max_coupons=STOCK)
    wishes = [(f"user {number}", "first") for number in range(STOCK + 500)]
    answered = await crowd(store_url, desk, wishes * 2, seed=4)
    await exactly(desk, answered, STOCK)
    assert tally(answered) == {Issued: STOCK, Replayed: STOCK, SoldOut: 1_000}
    given = {wish: outcome.sequence for wish, outcome in answered if isinstance(outcome, Issued)}
    again = {wish: outcome.sequence for wish, outcome in answered if isinstance(outcome, Replayed)}
    assert given == again


async def test_users_over_their_cap_who_send_everything_twice_still_get_three_each(room: Room, store_url: str) -> None:
    desk = await room.open(max_coupons_per_user=3)
    wishes = [(f"user {number}", str(attempt)) for number in range(100) for attempt in range(10)]
    answered = await crowd(store_url, desk, wishes * 2, seed=5)
    await exactly(desk, answered, 300)
    assert tally(answered) == {Issued: 300, Replayed: 300, PerUserLimit: 1_400}


async def test_one_coupon_redeemed_by_200_at_once_is_redeemed_once(room: Room, store_url: str) -> None:
    desk = await room.open()
    await desk.issue()

    async def merchant(store: CouponStore, number: int) -> RedeemOutcome:
        request = RedeemRequest(0, f"merchant {number}", "order", None, 0)
        return (await store.redeem(desk.known, 0, [request]))[0]

    async with connections(store_url) as stores:
        outcomes = await asyncio.gather(*(merchant(stores[n % CONNECTIONS], n) for n in range(CLIENTS)))
    assert Counter(type(outcome) for outcome in outcomes) == {Redeemed: 1, AlreadyRedeemed: CLIENTS - 1}
    assert (await desk.counters()).redeemed == 1
