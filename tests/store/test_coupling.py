"""A campaign coupled to its merchants never has more coupons out than they can redeem before these expire."""

import random

import pytest

from service.domain.money import Rate
from service.domain.outcomes import Issued, RateLimited, Replayed
from service.domain.validity import Duration, FixedValidity, RelativeValidity, zone_offsets
from tests.store.desk import EXPIRY, LAUNCH, Desk, Room

pytestmark = pytest.mark.anyio

SECOND = 1_000
TEN_SECONDS = FixedValidity("Asia/Shanghai", None, LAUNCH + 10 * SECOND)


async def ask(desk: Desk, first: int, count: int) -> list[object]:
    return list(await desk.issue_batch([(f"user {number}", "first") for number in range(first, first + count)]))


def issued(outcomes: list[object]) -> int:
    return sum(isinstance(outcome, Issued) for outcome in outcomes)


async def test_no_more_coupons_are_out_than_merchants_can_redeem_in_time(room: Room) -> None:
    desk = await room.open(validity=TEN_SECONDS, redemptions_per_second_milli=500)
    outcomes = await ask(desk, 0, 20)
    assert issued(outcomes) == 5
    before = await room.everything()
    assert outcomes[-1] == await desk.issue("late") == RateLimited("redemption", 5, 500, 2 * SECOND)
    assert isinstance(await desk.issue("user 0", "first"), Replayed)
    assert await room.everything() == before


async def test_a_redeemed_or_deactivated_coupon_makes_room_for_another_and_a_held_one_does_not(room: Room) -> None:
    desk = await room.open(validity=TEN_SECONDS, redemptions_per_second_milli=500)
    await ask(desk, 0, 5)
    await desk.redeem(0, hold_ms=SECOND)
    assert issued(await ask(desk, 10, 2)) == 0
    await desk.redeem(1)
    await desk.deactivate(2)
    assert issued(await ask(desk, 20, 9)) == 2


async def test_the_room_shrinks_as_the_expiry_comes_near_and_an_extension_widens_it(room: Room) -> None:
    desk = await room.open(validity=TEN_SECONDS, redemptions_per_second_milli=1_000)
    assert issued(await ask(desk, 0, 4)) == 4
    await room.clock.advance(7 * SECOND)
    assert issued(await ask(desk, 10, 1)) == 0
    await desk.extend(LAUNCH + 13 * SECOND)
    assert issued(await ask(desk, 20, 9)) == 2


async def test_what_cannot_be_redeemed_yet_has_the_time_from_its_start_on(room: Room) -> None:
    later = FixedValidity("Asia/Shanghai", LAUNCH + 6 * SECOND, LAUNCH + 10 * SECOND)
    desk = await room.open(validity=later, redemptions_per_second_milli=1_000)
    assert issued(await ask(desk, 0, 9)) == 4


async def test_where_validity_counts_from_issue_coupons_follow_redemptions(room: Room) -> None:
    offsets = zone_offsets("Asia/Shanghai", LAUNCH)
    minute = RelativeValidity("Asia/Shanghai", Duration(), Duration(exact_ms=60 * SECOND), offsets)
    desk = await room.open(validity=minute, redemptions_per_second_milli=100)
    assert issued(await ask(desk, 0, 9)) == 6
    for sequence in range(4):
        await room.clock.advance(SECOND)
        await desk.redeem(sequence)
        assert issued(await ask(desk, 10 * (sequence + 1), 9)) == 1


async def test_the_shards_divide_what_merchants_can_redeem(room: Room) -> None:
    desk = await room.open(shards=4, validity=TEN_SECONDS, redemptions_per_second_milli=1_002)
    assert issued([await desk.issue(f"user {number}") for number in range(100)]) == 2 + 2 + 2 + 2


async def test_at_every_moment_of_a_busy_day_what_is_out_can_still_be_redeemed(room: Room) -> None:
    chance = random.Random(4)
    desk = await room.open(validity=TEN_SECONDS, issue_rate=Rate(3_000, 5), redemptions_per_second_milli=1_700)
    sequence = granted = 0
    for step in range(60):
        now_ms = LAUNCH + step * 160
        await room.clock.set(now_ms)
        granted += (new := issued(await ask(desk, 100 * step, chance.randrange(6))))
        counters = await desk.counters()
        if new:
            assert (counters.outstanding + counters.reserved) * 10**6 <= 1_700 * (LAUNCH + 10 * SECOND - now_ms)
        if chance.random() < 0.4 and sequence < granted:
            await desk.redeem(sequence)
            sequence += 1
    assert granted > 17


async def test_a_coupling_can_be_set_and_taken_away(room: Room) -> None:
    desk = await room.open()
    assert issued(await ask(desk, 0, 9)) == 9
    await desk.change(redemptions_per_second_milli=1)
    assert issued(await ask(desk, 10, 9_999)) == (EXPIRY - LAUNCH) // 10**6 - 9
    await desk.change(redemptions_per_second_milli=None)
    assert issued(await ask(desk, 20_000, 9)) == 9
