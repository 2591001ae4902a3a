"""Tidying: expired coupons are marked and lapsed reservations freed, and their money comes back exactly once."""

from functools import partial

import pytest

from service.domain.coupon import Counters, CouponStatus
from service.domain.money import Money
from service.domain.outcomes import BudgetExhausted, Issued
from service.domain.validity import Duration, RelativeValidity, zone_offsets
from service.store import extensions
from service.store.coupons import SettleVerb
from tests.store.desk import EXPIRY, LATER, LAUNCH, Desk, Room, to_the_end

pytestmark = pytest.mark.anyio

DAY = 86_400_000
SECOND, MINUTE = 1_000, 60_000
ONE_DAY = RelativeValidity("Asia/Shanghai", Duration(), Duration(days=1), zone_offsets("Asia/Shanghai", LAUNCH))


async def opened(room: Room, coupons: int, **changes: object) -> Desk:
    desk = await room.open(**changes)
    outcomes = await desk.issue_batch([(f"user {number}", "first") for number in range(coupons)])
    assert all(isinstance(outcome, Issued) for outcome in outcomes)
    return desk


def ledger(**states: int) -> Counters:
    """The only ledger that goes with so many coupons in each state, when each is worth 2500."""
    counts = {name: states.get(name, 0) for name in ("outstanding", "reserved", "redeemed", "expired", "deactivated")}
    live = counts["outstanding"] + counts["reserved"] + counts["redeemed"]
    return Counters(issued=sum(counts.values()), **counts, budget_committed=2500 * live)


async def told(room: Room, kind: str) -> list[list[int]]:
    """The coupons of all events of that type, in order."""
    return [list(event.coupons) for event in await room.events() if event.type == kind]


async def test_expired_coupons_are_marked_once_and_their_money_comes_back_once(room: Room) -> None:
    desk = await opened(room, 5)
    await desk.redeem(0)
    await desk.redeem(1, hold_ms=DAY * 30)
    await desk.deactivate(2)
    await room.clock.set(EXPIRY)
    for _ in range(2):
        await desk.tidy()
        assert await desk.counters() == ledger(redeemed=1, reserved=1, deactivated=1, expired=2)
    assert await told(room, "coupon.expired") == [[3, 4]]


async def test_nothing_expires_a_millisecond_early(room: Room) -> None:
    desk = await opened(room, 3)
    await room.clock.set(EXPIRY - 1)
    await desk.tidy()
    assert await desk.counters() == ledger(outstanding=3)


async def test_money_that_came_back_is_issued_again(room: Room) -> None:
    desk = await opened(room, 2, budget=Money(5000, "CNY"), validity=ONE_DAY)
    assert await desk.issue("late") == BudgetExhausted()
    await room.clock.advance(DAY)
    assert await desk.issue("late") == BudgetExhausted()
    await desk.tidy()
    assert isinstance(await desk.issue("late"), Issued)
    assert isinstance(await desk.issue("later"), Issued)
    assert await desk.issue("too late") == BudgetExhausted()
    assert await desk.counters() == ledger(outstanding=2, expired=2)


async def test_the_sweep_follows_each_coupons_own_time(room: Room) -> None:
    desk = await opened(room, 2, validity=ONE_DAY)
    await room.clock.advance(MINUTE)
    await desk.issue("late")
    await room.clock.set(LAUNCH + DAY)
    await desk.tidy()
    assert await desk.counters() == ledger(outstanding=1, expired=2)
    await room.clock.advance(MINUTE)
    await desk.tidy()
    assert await desk.counters() == ledger(expired=3)


async def test_a_lapsed_reservation_is_freed_and_told(room: Room) -> None:
    desk = await opened(room, 2)
    await desk.redeem(0, hold_ms=MINUTE)
    await desk.redeem(1, hold_ms=MINUTE + 1)
    await room.clock.advance(MINUTE)
    for _ in range(2):
        await desk.tidy()
        assert await desk.counters() == ledger(outstanding=1, reserved=1)
    assert await told(room, "coupon.lapsed") == [[0]]


async def test_a_reservation_made_anew_lapses_by_its_new_time(room: Room) -> None:
    desk = await opened(room, 1)
    await desk.redeem(hold_ms=MINUTE)
    await room.clock.advance(MINUTE)
    await desk.redeem(order="another", hold_ms=MINUTE)
    await desk.tidy()
    assert await desk.counters() == ledger(reserved=1)
    await room.clock.advance(MINUTE)
    await desk.tidy()
    assert await desk.counters() == ledger(outstanding=1)


async def test_a_hold_behind_which_no_reservation_stands_is_dropped_without_a_word(room: Room) -> None:
    desk = await opened(room, 1)
    await desk.redeem()
    await room.client.zadd("tg:{spring:0}:holds", {"0": LAUNCH})
    before = await room.events()
    await desk.tidy()
    assert await room.events() == before
    assert await room.client.zcard("tg:{spring:0}:holds") == 0
    assert await desk.counters() == ledger(redeemed=1)


@pytest.mark.parametrize("work", ["lapse", "expire"])
async def test_a_reservation_that_outlived_its_coupon_expires_whatever_comes_first(room: Room, work: str) -> None:
    desk = await opened(room, 1)
    await room.clock.set(EXPIRY - 1)
    await desk.redeem(hold_ms=MINUTE)
    await room.clock.advance(MINUTE)
    await to_the_end(partial(getattr(room.extensions, work), desk.campaign, 0))
    assert await desk.counters() == ledger(expired=1)
    await desk.tidy()
    assert await desk.counters() == ledger(expired=1)


async def test_reservations_that_end_one_after_the_other_do_not_hold_up_what_expires_behind_them(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extensions, "COUPONS_PER_CALL", 5)
    desk = await opened(room, 30)
    await room.clock.set(EXPIRY - 1)
    for number in range(10):
        await desk.redeem(number, order=str(number), hold_ms=SECOND * (number + 1))
    await room.clock.set(EXPIRY)
    for _ in range(6):
        await to_the_end(partial(room.extensions.lapse, desk.campaign, 0))
        await room.extensions.expire(desk.campaign, 0)
        await room.clock.advance(SECOND)
    assert await desk.counters() == ledger(expired=25, reserved=5)
    await room.clock.advance(5 * SECOND)
    await to_the_end(partial(room.extensions.lapse, desk.campaign, 0))
    assert await desk.counters() == ledger(expired=30)


async def test_coupons_that_an_extension_kept_alive_expire_at_their_new_time(room: Room) -> None:
    desk = await opened(room, 3)
    await desk.extend(LATER)
    await desk.issue("late")
    for now_ms, expected in (
        (EXPIRY, ledger(outstanding=4)),
        (LATER - 1, ledger(outstanding=4)),
        (LATER, ledger(expired=4)),
    ):
        await room.clock.set(now_ms)
        await desk.tidy()
        assert await desk.counters() == expected


async def test_an_extension_comes_too_late_for_what_was_swept(room: Room) -> None:
    desk = await opened(room, 2, validity=ONE_DAY)
    await room.clock.advance(DAY - 1)
    await desk.issue("late")
    await room.clock.advance(1)
    await desk.tidy()
    await desk.write_through((await desk.extend(LATER)).number)
    assert [coupon.status for coupon in await desk.all_coupons()] == [
        CouponStatus.EXPIRED,
        CouponStatus.EXPIRED,
        CouponStatus.ISSUED,
    ]
    assert await desk.counters() == ledger(outstanding=1, expired=2)


@pytest.mark.parametrize("verb", ["rollback", "release"])
async def test_what_comes_back_behind_the_sweep_is_swept_at_its_time(room: Room, verb: SettleVerb) -> None:
    desk = await opened(room, 2)
    await desk.redeem(0, hold_ms=30 * DAY if verb == "release" else 0)
    await desk.deactivate(1)
    await desk.extend(LATER)
    await room.clock.set(EXPIRY)
    await desk.tidy()
    await desk.settle(verb)
    assert await desk.counters() == ledger(outstanding=1, deactivated=1)
    await room.clock.set(LATER)
    await desk.tidy()
    assert await desk.counters() == ledger(expired=1, deactivated=1)


async def test_a_sweep_in_small_steps_comes_to_the_same(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "COUPONS_PER_CALL", 3)
    desk = await opened(room, 20)
    await desk.extend(LATER)
    for sequence in (0, 4, 19):
        await desk.redeem(sequence, hold_ms=40 * DAY)
    await room.clock.set(EXPIRY)
    assert await room.extensions.expire(desk.campaign, 0)
    await desk.tidy()
    await room.clock.set(LATER)
    await desk.tidy()
    assert await desk.counters() == ledger(expired=17, reserved=3)
    await room.clock.advance(40 * DAY)
    await desk.tidy()
    assert await desk.counters() == ledger(expired=20)
