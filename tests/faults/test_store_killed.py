"""A store that is killed in the middle of its work loses nothing that anybody was told and gives nothing twice."""

import asyncio
import random
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
import pytest

from service.domain.coupon import Counters, CouponStatus
from service.domain.outcomes import Issued, Redeemed, RedemptionReplayed, Replayed
from service.store.catalogue import KnownCampaign
from service.store.client import connect
from service.store.coupons import RedeemRequest
from service.store.scripts import StoreError
from tests.store.desk import LAUNCH, Desk, Room
from tests.store.server import StoreServer

pytestmark = pytest.mark.anyio

WORKERS: Final = 16
LARGEST_BATCH: Final = 24
WISHES_A_ROUND: Final = 1_200
KILLED_AFTER: Final = (1, 150, 700, 1_200)
"""How many answers there have been in a round when the store is about to be killed; the rounds share their data."""
LONGEST_DELAY_S: Final = 0.003
"""The kill comes a moment later, so that it meets the store at any point of its work."""

Wish = tuple[str, str]


class Story:
    """What was asked for, and what was answered, in all rounds."""

    def __init__(self) -> None:
        self.wished: set[Wish] = set()
        self.given: dict[Wish, int] = {}
        self.asked_to_redeem: set[int] = set()
        self.redeemed: set[int] = set()


@asynccontextmanager
async def room_over(server: StoreServer) -> AsyncIterator[Room]:
    client = connect(server.url, timeout_ms=5_000)
    yield Room(client)
    await client.aclose()


def order_of(sequence: int) -> RedeemRequest:
    return RedeemRequest(sequence, "tea house", f"order {sequence}", None, 0)


async def live_until_killed(server: StoreServer, known: KnownCampaign, story: Story, after: int, seed: int) -> None:
    """Issue and redeem with many workers; soon after so many answers the store is killed under their hands."""
    dice = random.Random(seed)
    waiting = [(f"user {seed} {number}", "first") for number in range(WISHES_A_ROUND)]
    answers = 0

    def answered(number: int) -> None:
        nonlocal answers
        if answers < after <= answers + number:
            asyncio.get_running_loop().call_later(dice.uniform(0, LONGEST_DELAY_S), server.kill)
        answers += number

    async def worker(desk: Desk) -> None:
        while waiting:
            size = dice.randint(1, LARGEST_BATCH)
            batch, waiting[:size] = waiting[:size], []
            story.wished.update(batch)
            try:
                outcomes = await desk.issue_batch(batch)
                sequences = [outcome.sequence for outcome in outcomes if isinstance(outcome, Issued)]
                assert len(sequences) == len(batch)
                story.given.update(zip(batch, sequences, strict=True))
                answered(len(batch))
                story.asked_to_redeem.update(sequences[::2])
                redeemed = await desk.redeem_batch([order_of(sequence) for sequence in sequences[::2]])
                assert all(isinstance(outcome, Redeemed) for outcome in redeemed)
                story.redeemed.update(sequences[::2])
                answered(len(redeemed))
            except StoreError:
                return

    async with room_over(server) as room, anyio.create_task_group() as workers:
        for _ in range(WORKERS):
            workers.start_soon(worker, Desk(room, known))
    assert len(story.given) + len(story.redeemed) < len(story.wished) + len(story.asked_to_redeem)


async def ledger_of_records(desk: Desk) -> Counters:
    """The ledger, reckoned anew from every coupon there is."""
    statuses = Counter(coupon.status for coupon in await desk.all_coupons())
    live = statuses[CouponStatus.ISSUED] + statuses[CouponStatus.REDEEMED]
    return Counters(
        statuses.total(), statuses[CouponStatus.ISSUED], 0, statuses[CouponStatus.REDEEMED], 0, 0, live * 2500
    )


@pytest.fixture
def server() -> Iterator[StoreServer]:
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        server = StoreServer(Path(folder))
        server.start()
        yield server
        server.kill()


async def test_nothing_that_was_answered_is_lost_and_every_repeat_gets_one_coupon(server: StoreServer) -> None:
    async with room_over(server) as room:
        await room.clock.set(LAUNCH)
        known = (await room.open()).known
    story = Story()
    for seed, after in enumerate(KILLED_AFTER):
        await live_until_killed(server, known, story, after, seed)
        server.start()
        async with room_over(server) as room:
            desk = Desk(room, known)
            coupons = await desk.all_coupons()
            assert {wish: coupons[sequence].user_id for wish, sequence in story.given.items()} == {
                wish: wish[0] for wish in story.given
            }
            assert {coupons[sequence].status for sequence in story.redeemed} <= {CouponStatus.REDEEMED}
            assert await desk.counters() == await ledger_of_records(desk)
            await everything_is_asked_again(desk, story)


async def everything_is_asked_again(desk: Desk, story: Story) -> None:
    """Whoever got no answer repeats the request under its key, and so does everybody else."""
    wishes, redemptions = sorted(story.wished), sorted(story.asked_to_redeem)
    for at in range(0, len(wishes), LARGEST_BATCH):
        batch = wishes[at : at + LARGEST_BATCH]
        for wish, outcome in zip(batch, await desk.issue_batch(batch), strict=True):
            assert isinstance(outcome, Replayed) or (isinstance(outcome, Issued) and wish not in story.given)
            assert story.given.setdefault(wish, outcome.sequence) == outcome.sequence
    assert len(set(story.given.values())) == len(wishes) == (await desk.counters()).issued
    for at in range(0, len(redemptions), LARGEST_BATCH):
        orders = [order_of(sequence) for sequence in redemptions[at : at + LARGEST_BATCH]]
        for order, redemption in zip(orders, await desk.redeem_batch(orders), strict=True):
            assert isinstance(redemption, RedemptionReplayed) or order.sequence not in story.redeemed
            story.redeemed.add(order.sequence)
    assert (await desk.counters()).redeemed == len(story.redeemed)
