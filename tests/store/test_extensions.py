"""An extension holds for every coupon at once; writing it through then changes what is stored, not what is true."""

import asyncio
from functools import partial

import pytest

from service.domain.coupon import CouponStatus
from service.domain.outcomes import Expired, Issued, IssueOutcome, Redeemed
from service.domain.validity import MAX_EXTENSIONS, Duration, RelativeValidity, zone_offsets
from service.store.extensions import COUPONS_PER_CALL, ExtensionStatus, ExtensionStore
from tests.store.desk import EXPIRY, LATER, LAUNCH, Desk, DyingScripts, ProcessDied, Room, to_the_end

pytestmark = pytest.mark.anyio

DAY = 86_400_000
A_WEEK = RelativeValidity("Asia/Shanghai", Duration(), Duration(days=7), zone_offsets("Asia/Shanghai", LAUNCH))


async def issue_many(desk: Desk, number: int) -> list[IssueOutcome]:
    wishes = [(f"user {index}", "first") for index in range(number)]
    return [outcome for at in range(0, number, 256) for outcome in await desk.issue_batch(wishes[at : at + 256])]


async def expiries(desk: Desk) -> list[int]:
    return [coupon.expires_at_ms for coupon in await desk.all_coupons()]


async def test_an_extension_holds_at_once_for_every_coupon(room: Room) -> None:
    desk = await room.open()
    await issue_many(desk, 200)
    progress = await desk.extend(LATER)
    assert (progress.status, progress.total, progress.done) == (ExtensionStatus.PENDING, 200, 0)
    assert await expiries(desk) == [LATER] * 200
    await room.clock.set(LATER - 1)
    assert isinstance(await desk.redeem(0), Redeemed)
    await room.clock.set(LATER)
    assert await desk.redeem(1) == Expired(LATER)


async def test_writing_through_changes_what_is_stored_and_not_what_is_true(room: Room) -> None:
    desk = await room.open()
    number = COUPONS_PER_CALL + 300
    await issue_many(desk, number)
    first = await desk.extend(LATER)
    assert await room.extensions.write_through(desk.campaign, 0, first.number)
    half = await room.extensions.progress(desk.campaign, first.number)
    assert half is not None
    assert (half.status, half.done, half.changed) == (ExtensionStatus.RUNNING, COUPONS_PER_CALL, COUPONS_PER_CALL)
    done = await desk.write_through(first.number)
    assert (done.status, done.total, done.done, done.changed) == (ExtensionStatus.COMPLETED, number, number, number)
    assert set(await expiries(desk)) == {LATER}
    assert not await room.extensions.write_through(desk.campaign, 0, first.number)
    assert await room.extensions.progress(desk.campaign, first.number) == done


async def test_the_same_extension_again_changes_no_coupon(room: Room) -> None:
    desk = await room.open()
    await issue_many(desk, 5)
    await desk.write_through((await desk.extend(LATER)).number)
    again = await desk.write_through((await desk.extend(LATER)).number)
    assert (again.number, again.done, again.changed) == (2, 5, 0)


async def test_an_extension_never_shortens(room: Room) -> None:
    desk = await room.open()
    await issue_many(desk, 5)
    progress = await desk.write_through((await desk.extend(EXPIRY - DAY)).number)
    assert progress.changed == 0
    assert await expiries(desk) == [EXPIRY] * 5


async def test_an_extension_lifts_what_was_valid_when_it_was_made_and_nothing_else(room: Room) -> None:
    desk = await room.open(validity=A_WEEK)
    await desk.issue("ann")
    await room.clock.advance(DAY)
    await desk.issue("bob")
    await room.clock.set(LAUNCH + 7 * DAY)
    progress = await desk.extend(LAUNCH + 30 * DAY)
    await desk.issue("eve")
    assert await expiries(desk) == [LAUNCH + 7 * DAY, LAUNCH + 30 * DAY, LAUNCH + 14 * DAY]
    assert (await desk.write_through(progress.number)).changed == 1
    assert await expiries(desk) == [LAUNCH + 7 * DAY, LAUNCH + 30 * DAY, LAUNCH + 14 * DAY]


async def test_the_millisecond_of_expiry_is_too_late_to_be_extended(room: Room) -> None:
    desk = await room.open(validity=A_WEEK)
    await desk.issue("ann")
    await room.clock.advance(1)
    await desk.issue("bob")
    await room.clock.set(LAUNCH + 7 * DAY)
    await desk.extend(LATER)
    assert await expiries(desk) == [LAUNCH + 7 * DAY, LATER]


async def test_where_all_coupons_expire_together_later_ones_get_the_new_instant(room: Room) -> None:
    desk = await room.open()
    await desk.extend(LATER)
    await room.clock.set(EXPIRY + DAY)
    assert await desk.issue() == Issued(0, EXPIRY + DAY, EXPIRY + DAY, LATER)


async def test_changed_counts_the_coupons_somebody_used_meanwhile(room: Room) -> None:
    desk = await room.open()
    await issue_many(desk, 6)
    await desk.redeem(0)
    await desk.deactivate(1)
    progress = await desk.extend(LATER)
    await desk.redeem(2, hold_ms=60_000)
    await desk.redeem(3, hold_ms=60_000)
    await desk.settle("release", 3)
    assert (await desk.write_through(progress.number)).changed == 4


async def test_changed_is_right_for_both_when_a_later_extension_overtakes_an_earlier_one(room: Room) -> None:
    desk = await room.open()
    await issue_many(desk, 6)
    first = await desk.extend(LATER)
    second = await desk.extend(LATER + DAY)
    assert (await desk.write_through(second.number)).changed == 6
    assert (await desk.write_through(first.number)).changed == 6
    assert await expiries(desk) == [LATER + DAY] * 6


async def test_every_coupon_extended_stands_in_the_events(room: Room) -> None:
    desk = await room.open()
    await issue_many(desk, 3)
    await desk.redeem(1)
    await desk.write_through((await desk.extend(LATER)).number)
    assert [(event.type, event.data) for event in (await room.events())[2:]] == [
        ("campaign.extended", {"extension": 1, "until_ms": LATER, "reason": "as asked"}),
        ("coupon.extended", {"coupons": [0, 1, 2, 1], "extension": 1}),
    ]


async def test_a_redemption_rolled_back_after_an_extension_is_valid_for_longer(room: Room) -> None:
    desk = await room.open()
    await desk.issue()
    await desk.redeem()
    await desk.extend(LATER)
    await room.clock.set(EXPIRY)
    await desk.settle("rollback")
    (coupon,) = await desk.all_coupons()
    assert (coupon.status, coupon.expires_at_ms) == (CouponStatus.ISSUED, LATER)


async def test_a_campaign_is_extended_only_so_often(room: Room) -> None:
    desk = await room.open()
    for number in range(MAX_EXTENSIONS):
        assert (await desk.extend(LATER + number)).number == number + 1
    assert await room.extensions.extend(desk.campaign, LATER, "once too often") is None
    assert isinstance(await desk.issue(), Issued)


async def test_an_extension_nobody_made_is_unknown(room: Room) -> None:
    desk = await room.open()
    assert await room.extensions.progress(desk.campaign, 1) is None
    assert not await room.extensions.write_through(desk.campaign, 0, 1)


async def test_extensions_made_at_the_same_time_reach_every_shard(room: Room) -> None:
    desk = await room.open(shards=4)
    for number in range(40):
        await desk.issue(f"user {number}")
    made = await asyncio.gather(*(desk.extend(LATER + number) for number in range(8)))
    assert sorted(progress.number for progress in made) == list(range(1, 9))
    assert set(await expiries(desk)) == {LATER + 7}
    for progress in made:
        done = await desk.write_through(progress.number)
        assert (done.total, done.done) == (40, 40)


async def test_an_extension_that_died_between_two_shards_is_finished_by_whoever_looks(room: Room) -> None:
    desk = await room.open(shards=4)
    for number in range(40):
        await desk.issue(f"user {number}")
    with pytest.raises(ProcessDied):
        await ExtensionStore(DyingScripts(room.client, calls=3)).extend(desk.campaign, LATER, "cut short")
    progress = await room.extensions.progress(desk.campaign, 1)
    assert progress is not None
    assert (progress.total, progress.reason) == (40, "cut short")
    assert set(await expiries(desk)) == {LATER}


async def test_the_next_extension_takes_along_one_that_died_between_two_shards(room: Room) -> None:
    desk = await room.open(shards=4)
    with pytest.raises(ProcessDied):
        await ExtensionStore(DyingScripts(room.client, calls=1)).extend(desk.campaign, LATER, "cut short")
    second = await desk.extend(LATER + DAY)
    assert second.number == 2
    for shard in range(4):
        await to_the_end(partial(room.extensions.write_through, desk.campaign, shard, 1))
    outcomes = [await desk.issue(f"user {number}") for number in range(20)]
    assert {outcome.expires_at_ms for outcome in outcomes if isinstance(outcome, Issued)} == {LATER + DAY}
