"""Many coupons are taken out of use at once: each that is free, with its money, and no other."""

import pytest

from service.domain.codes import CouponAddress
from service.domain.coupon import Counters, CouponStatus
from service.domain.money import Money
from service.domain.outcomes import (
    AlreadyRedeemed,
    CouponDeactivated,
    Deactivated,
    Expired,
    Issued,
    ReservedElsewhere,
    UnknownCode,
)
from service.domain.validity import Duration, RelativeValidity, zone_offsets
from tests.store.desk import EXPIRY, LATER, LAUNCH, Desk, Room

pytestmark = pytest.mark.anyio

MINUTE, DAY = 60_000, 86_400_000
ONE_DAY = RelativeValidity("Asia/Shanghai", Duration(), Duration(days=1), zone_offsets("Asia/Shanghai", LAUNCH))


async def of_every_status(room: Room) -> Desk:
    """Four coupons of ann's: free, redeemed, reserved and deactivated; and one of bob's."""
    desk = await room.open()
    await desk.issue_batch([("ann", str(number)) for number in range(4)] + [("bob", "0")])
    await desk.redeem(1)
    await desk.redeem(2, hold_ms=MINUTE)
    await desk.deactivate(3)
    return desk


async def test_a_user_loses_what_is_free_and_its_money_returns(room: Room) -> None:
    desk = await of_every_status(room)
    results = await desk.deactivate_user("ann")
    assert [address for address, _ in results] == [CouponAddress(0, sequence) for sequence in range(4)]
    assert [type(outcome) for _, outcome in results] == [
        CouponDeactivated,
        AlreadyRedeemed,
        ReservedElsewhere,
        CouponDeactivated,
    ]
    ledger = await desk.ledger()
    assert (ledger.counters.outstanding, ledger.counters.deactivated) == (1, 2)
    assert ledger.counters.budget_committed == 3 * 2500
    assert await desk.redeem(0) == Deactivated()
    bobs = await room.coupons.user_coupons(desk.known, "bob")
    assert [coupon.status for coupon in bobs] == [CouponStatus.ISSUED]


async def test_a_user_without_coupons_loses_nothing(room: Room) -> None:
    desk = await room.open(shards=3)
    assert await desk.deactivate_user("nobody") == []


async def test_a_user_who_lost_his_coupons_finds_them_again_under_their_keys_but_gets_no_others(room: Room) -> None:
    desk = await room.open(max_coupons_per_user=1)
    issued = await desk.issue()
    await desk.deactivate_user()
    assert isinstance(issued, Issued)
    assert (await desk.issue()).sequence == issued.sequence  # type: ignore[union-attr]
    assert not isinstance(await desk.issue("ann", "second"), Issued)


async def test_a_list_is_deactivated_over_all_shards_and_answered_in_its_order(room: Room) -> None:
    desk = await room.open(shards=3)
    for number in range(30):
        await desk.issue(f"user {number}")
    wanted = [CouponAddress(2, 0), CouponAddress(0, 1), CouponAddress(1, 0), CouponAddress(0, 99), CouponAddress(2, 0)]
    outcomes = await room.deactivations.deactivate(desk.known, wanted, "leaked")
    for address, outcome in zip(wanted, outcomes, strict=True):
        match outcome:
            case CouponDeactivated(coupon):
                assert (coupon.shard, coupon.sequence) == (address.shard, address.sequence)
            case _:
                assert (address.sequence, outcome) == (99, UnknownCode())
    assert (await desk.counters()).deactivated == 3
    events = [event for shard in range(3) for event in await room.events(shard=shard) if "deact" in event.type]
    assert [(event.shard, event.data) for event in events] == [
        (shard, {"coupons": [sequence, 1], "reason": "leaked"}) for shard, sequence in ((0, 1), (1, 0), (2, 0))
    ]


async def test_coupons_past_their_time_are_left_to_expire(room: Room) -> None:
    desk = await of_every_status(room)
    await room.clock.set(EXPIRY)
    outcomes = await desk.deactivate_all(range(4))
    assert [type(outcome) for outcome in outcomes] == [Expired, AlreadyRedeemed, Expired, CouponDeactivated]
    await desk.tidy()
    assert (await desk.counters()).budget_committed == 2500


async def test_a_coupon_that_another_ones_money_brings_back_does_not_escape(room: Room) -> None:
    desk = await room.open(budget=Money(2 * 2500, "CNY"))
    for key in ("first", "second"):
        await desk.issue("ann", key)
    await room.clock.set(EXPIRY)
    await desk.tidy()
    assert await desk.change(budget=Money(2500, "CNY")) is None
    assert (await desk.write_through((await desk.extend(LATER, include_expired=True)).number)).refused == 1
    assert [type(outcome) for _, outcome in await desk.deactivate_user("ann")] == [CouponDeactivated] * 2
    assert await desk.redeem(1) == Deactivated()
    counters = await desk.counters()
    assert (counters.deactivated, counters.budget_committed) == (2, 0)


@pytest.mark.parametrize("one_by_one", [False, True])
async def test_a_coupon_that_waits_for_money_to_come_back_does_not_escape(room: Room, one_by_one: bool) -> None:
    desk = await room.open(budget=Money(2500, "CNY"), validity=ONE_DAY)
    await desk.issue("ann", "first")
    await room.clock.advance(DAY)
    await desk.tidy()
    await desk.issue("ann", "second")
    assert (await desk.write_through((await desk.extend(LATER, include_expired=True)).number)).refused == 1
    if one_by_one:
        outcomes = [await desk.deactivate(0), await desk.deactivate(1)]
    else:
        outcomes = [outcome for _, outcome in await desk.deactivate_user("ann")]
    assert [type(outcome) for outcome in outcomes] == [CouponDeactivated] * 2
    assert await desk.redeem(0) == Deactivated()
    assert await desk.counters() == Counters(2, 0, 0, 0, 0, deactivated=2, budget_committed=0)
