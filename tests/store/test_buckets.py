"""Token buckets never admit more than burst and rate allow, nor noticeably less, and tell the wait exactly."""

from collections.abc import Awaitable, Callable

import pytest

from service.domain.money import Rate
from service.domain.outcomes import Issued, RateLimited, Redeemed
from service.store.coupons import MOST_FIRST_ANSWERS, RedeemRequest
from tests.store.desk import Desk, Room

pytestmark = pytest.mark.anyio

MINUTE = 60_000
TICKS = [1, 999, 500, 13, 487]
"""Milliseconds between requests, over and over; a minute is a whole number of rounds."""
DEMAND = 13
"""How many requests arrive at once: more than any rate here lets through meanwhile."""

RATES = [Rate(9_999, 12), Rate(1_500, 40)]
WAITS = [Rate(1, 1), Rate(777, 5), Rate(1_000, 1), Rate(700_001, 3)]
BUCKETS = ["campaign", "user", "merchant"]


async def campaign_bucket(room: Room, rate: Rate) -> Callable[[int], Awaitable[list[object]]]:
    desk = await room.open(issue_rate=rate)
    return lambda first: issue(desk, [(f"user {first + number}", "first") for number in range(DEMAND)])


async def user_bucket(room: Room, rate: Rate) -> Callable[[int], Awaitable[list[object]]]:
    desk = await room.open(user_rate=rate, max_coupons_per_user=10_000)
    return lambda first: issue(desk, [("ann", str(first + number)) for number in range(DEMAND)])


async def merchant_bucket(room: Room, rate: Rate) -> Callable[[int], Awaitable[list[object]]]:
    desk = await room.open(merchant_rate=rate)
    for first in range(0, 2048, 256):
        await desk.issue_batch([(f"user {first + number}", "first") for number in range(256)])
    return lambda first: redeem(desk, first)


async def issue(desk: Desk, wishes: list[tuple[str, str]]) -> list[object]:
    return list(await desk.issue_batch(wishes))


async def redeem(desk: Desk, first: int) -> list[object]:
    requests = [
        RedeemRequest(first + number, "tea house", f"order {first + number}", None, 0) for number in range(DEMAND)
    ]
    return list(await desk.redeem_batch(requests))


ASKERS = {"campaign": campaign_bucket, "user": user_bucket, "merchant": merchant_bucket}


def admitted(outcomes: list[object]) -> int:
    return sum(isinstance(outcome, Issued | Redeemed) for outcome in outcomes)


@pytest.mark.parametrize("rate", RATES, ids=str)
@pytest.mark.parametrize("bucket", BUCKETS)
async def test_a_minute_of_demand_gets_what_burst_and_rate_allow(room: Room, bucket: str, rate: Rate) -> None:
    ask = await ASKERS[bucket](room, rate)
    total = elapsed_ms = 0
    for number, tick in enumerate(TICKS * (MINUTE // sum(TICKS))):
        await room.clock.advance(tick)
        elapsed_ms += tick
        total += admitted(await ask(number * DEMAND))
        assert total <= rate.burst + rate.per_second_milli * elapsed_ms / 1_000_000
    assert elapsed_ms == MINUTE
    assert total >= (rate.burst + rate.per_second_milli * MINUTE / 1_000_000) * 0.995 - 1


@pytest.mark.parametrize("rate", WAITS, ids=str)
@pytest.mark.parametrize("bucket", BUCKETS)
async def test_the_wait_is_told_to_the_millisecond(room: Room, bucket: str, rate: Rate) -> None:
    ask = await ASKERS[bucket](room, rate)
    emptied = await ask(0)
    assert admitted(emptied) == rate.burst
    # Whoever comes in the batch that takes the last token is told what the next batch is.
    assert emptied[-1] == (await ask(DEMAND))[-1]
    for round_number in range(1, 4):
        refused = (await ask(round_number * 3 * DEMAND))[-1]
        assert isinstance(refused, RateLimited)
        assert (refused.bucket, refused.burst, refused.per_second_milli) == (bucket, rate.burst, rate.per_second_milli)
        await room.clock.advance(refused.retry_after_ms - 1)
        assert admitted(await ask((round_number * 3 + 1) * DEMAND)) == 0
        await room.clock.advance(1)
        assert admitted(await ask((round_number * 3 + 2) * DEMAND)) == 1


@pytest.mark.parametrize("bucket", BUCKETS)
async def test_a_clock_that_steps_back_gives_and_takes_no_tokens(room: Room, bucket: str) -> None:
    ask = await ASKERS[bucket](room, Rate(1_000, 3))
    await room.clock.advance(3_600_000)
    assert admitted(await ask(0)) == 3
    emptied_ms = room.clock.now_ms
    for step, by_ms in enumerate([-3_600_000, 1_000, 3_598_999], start=1):
        await room.clock.advance(by_ms)
        outcomes = await ask(step * DEMAND)
        refused = outcomes[-1]
        assert admitted(outcomes) == 0
        assert isinstance(refused, RateLimited)
        wait_ms = refused.retry_after_ms
        assert room.clock.now_ms + wait_ms == emptied_ms + 1_000
    await room.clock.advance(wait_ms)
    assert admitted(await ask(4 * DEMAND)) == 1
    await room.clock.advance(-500)
    await room.clock.advance(1_500)
    assert admitted(await ask(5 * DEMAND)) == 1


async def test_a_bucket_that_was_never_charged_is_full_however_slowly_it_fills(room: Room) -> None:
    desk = await room.open(issue_rate=Rate(1, 10**8))
    assert (await room.catalogue.ledger(desk.campaign)).bucket_tokens == 10**8


@pytest.mark.parametrize("bucket", BUCKETS)
async def test_who_comes_while_the_clock_is_back_does_not_set_the_bucket_back(room: Room, bucket: str) -> None:
    ask = await ASKERS[bucket](room, Rate(1_000, DEMAND + 1))
    await room.clock.advance(MINUTE)
    assert admitted(await ask(0)) == DEMAND
    await room.clock.advance(-10_000)
    assert admitted(await ask(DEMAND)) == 1
    await room.clock.advance(10_000)
    assert admitted(await ask(2 * DEMAND)) == 0


async def test_each_user_and_each_merchant_has_a_bucket_of_ones_own(room: Room) -> None:
    desk = await room.open(user_rate=Rate(1, 1), merchant_rate=Rate(1, 1))
    outcomes = await desk.issue_batch([("ann", "1"), ("ann", "2"), ("bob", "1")])
    assert [type(outcome) for outcome in outcomes] == [Issued, RateLimited, Issued]
    requests = [RedeemRequest(number % 2, f"merchant {number // 2}", "order", None, 0) for number in range(3)]
    redeemed = await desk.redeem_batch(requests)
    assert [type(outcome) for outcome in redeemed[:2]] == [Redeemed, RateLimited]
    assert isinstance(await desk.redeem(1, merchant="merchant 1"), Redeemed)


async def test_as_many_merchants_as_a_batch_may_have_are_charged_each(room: Room) -> None:
    many = MOST_FIRST_ANSWERS
    desk = await room.open(max_coupons=2 * many, merchant_rate=Rate(1, 1))
    await desk.issue_batch([(f"user {number}", "first") for number in range(2 * many)])
    for first, outcome in ((0, Redeemed), (many, RateLimited)):
        requests = [RedeemRequest(first + number, f"merchant {number}", "order", None, 0) for number in range(many)]
        assert {type(found) for found in await desk.redeem_batch(requests)} == {outcome}


async def test_of_merchants_who_get_nothing_nothing_is_kept(room: Room) -> None:
    desk = await room.open(merchant_rate=Rate(1, 1))
    await desk.issue_batch([("ann", "first"), ("bob", "first")])
    wishes = [(0, "tea house"), (0, "book shop"), (1, "inn"), (9, "nobody")]
    await desk.redeem_batch([RedeemRequest(sequence, who, "order", None, 0) for sequence, who in wishes])
    assert set(await room.client.hkeys("tg:{spring:0}:merchants")) == {b"tea house", b"inn"}


async def test_a_lower_burst_holds_from_the_next_request_on(room: Room) -> None:
    desk = await room.open(issue_rate=Rate(1, 5), user_rate=Rate(1, 5))
    await desk.issue("ann", "1")
    await desk.change(issue_rate=Rate(1, 100), user_rate=Rate(1, 1))
    outcomes = await desk.issue_batch([("ann", "2"), ("ann", "3")])
    assert [type(outcome) for outcome in outcomes] == [Issued, RateLimited]


async def test_a_users_limit_can_be_lifted_and_set_again(room: Room) -> None:
    desk = await room.open(user_rate=Rate(1, 1))
    await desk.issue("ann", "1")
    await desk.change(user_rate=None)
    assert isinstance(await desk.issue("ann", "2"), Issued)
    await desk.change(user_rate=Rate(1, 1))
    assert isinstance(await desk.issue("ann", "3"), Issued)
    assert isinstance(await desk.issue("ann", "4"), RateLimited)
    assert [coupon.sequence for coupon in await room.coupons.user_coupons(desk.known, "ann")] == [0, 1, 2]


async def test_the_shards_rates_add_up_to_the_campaigns(room: Room) -> None:
    desk = await room.open(shards=4, issue_rate=Rate(1_003, 10))
    outcomes = [await desk.issue(f"user {number}") for number in range(100)]
    assert admitted(list(outcomes)) == 10
    rates = {(outcome.per_second_milli, outcome.burst) for outcome in outcomes if isinstance(outcome, RateLimited)}
    assert rates == {(251, 3), (251, 2), (250, 2)}
