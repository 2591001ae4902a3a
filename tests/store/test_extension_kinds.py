"""Extensions of every kind: of what is over, of some coupons, and taken back; and those that an older Tidegate made."""

import msgpack
import pytest

from service.domain.benefit import Amount
from service.domain.coupon import CouponStatus
from service.domain.extension import Outage, Scope
from service.domain.money import Money
from service.domain.outcomes import CouponDeactivated, Expired, OrderTooSmall, Redeemed
from service.store.coupons import RedeemRequest
from service.store.extension_progress import ExtensionStatus
from service.store.extensions import ExtensionStore
from tests.store.desk import EXPIRY, LATER, LAUNCH, DyingScripts, ProcessDied, Room
from tests.store.test_extensions import DAY, expiries, issue_many

pytestmark = pytest.mark.anyio


async def test_expired_coupons_come_back_when_asked_and_take_their_budget_again(room: Room) -> None:
    desk = await room.open(budget=Money(3 * 2500, "CNY"))
    await issue_many(desk, 3)
    await room.clock.set(EXPIRY)
    await desk.tidy()
    assert (await desk.write_through((await desk.extend(LATER)).number)).changed == 0
    back = await desk.write_through((await desk.extend(LATER, include_expired=True)).number)
    assert (back.changed, back.revived, back.refused) == (3, 3, 0)
    counters = await desk.counters()
    assert (counters.outstanding, counters.expired, counters.budget_committed) == (3, 0, 7500)
    assert isinstance(await desk.redeem(0), Redeemed)


async def test_a_coupon_that_came_back_by_its_use_and_was_given_back_expires_in_the_end(room: Room) -> None:
    desk = await room.open()
    await issue_many(desk, 1)
    await room.clock.set(EXPIRY)
    await desk.tidy()
    await desk.extend(LATER, include_expired=True)
    assert isinstance(await desk.redeem(0, hold_ms=1_000), Redeemed)
    for now_ms in (EXPIRY + 1_000, LATER):
        await room.clock.set(now_ms)
        await desk.tidy()
    counters = await desk.counters()
    assert (counters.outstanding, counters.expired, counters.budget_committed) == (0, 1, 0)


async def test_an_expired_coupon_that_the_budget_does_not_cover_waits_until_it_does(room: Room) -> None:
    desk = await room.open(budget=Money(2500, "CNY"))
    await desk.issue("ann")
    await room.clock.set(EXPIRY)
    await desk.tidy()
    await desk.extend(LATER)
    assert await desk.change(budget=Money(2499, "CNY")) is None
    refused = await desk.write_through((await desk.extend(LATER, include_expired=True)).number)
    assert (refused.changed, refused.revived, refused.refused) == (0, 0, 1)
    assert await desk.redeem(0) == Expired(LATER)
    assert await desk.change(budget=Money(2500, "CNY")) is None
    assert isinstance(await desk.redeem(0), Redeemed)
    assert (await desk.counters()).budget_committed == 2500


async def test_an_extension_that_was_undone_before_it_was_written_brings_nobody_back(room: Room) -> None:
    desk = await room.open()
    await issue_many(desk, 3)
    await room.clock.set(EXPIRY)
    await desk.tidy()
    back = await desk.extend(LATER, include_expired=True)
    await desk.undo(back.number)
    assert (await desk.write_through(back.number)).revived == 0
    counters = await desk.counters()
    assert (counters.outstanding, counters.expired, counters.budget_committed) == (0, 3, 0)
    assert await desk.redeem(0) == Expired(EXPIRY)


async def test_two_coupons_that_come_back_in_one_batch_do_not_share_one_budget(room: Room) -> None:
    desk = await room.open(budget=Money(2 * 2500, "CNY"))
    await issue_many(desk, 2)
    await room.clock.set(EXPIRY)
    await desk.tidy()
    assert await desk.change(budget=Money(2500, "CNY")) is None
    await desk.extend(LATER, include_expired=True)
    requests = [RedeemRequest(sequence, "tea house", "order", None, 0) for sequence in range(2)]
    outcomes = await desk.redeem_batch(requests)
    assert [type(outcome) for outcome in outcomes] == [Redeemed, Expired]
    assert (await desk.counters()).budget_committed == 2500


async def test_who_is_refused_takes_no_budget_from_the_next_of_his_batch(room: Room) -> None:
    desk = await room.open(budget=Money(3 * 2500, "CNY"), benefit=Amount(2500, "CNY", min_order_amount=100))
    await issue_many(desk, 3)
    await room.clock.set(EXPIRY)
    await desk.tidy()
    assert await desk.change(budget=Money(2500, "CNY")) is None
    await desk.extend(LATER, include_expired=True)
    assert {coupon.status for coupon, _ in (await room.coupons.page(desk.known, 0, 0)).coupons} == {CouponStatus.ISSUED}
    requests = [RedeemRequest(sequence, "tea house", "order", 100 * sequence, 0) for sequence in range(2)]
    assert [type(outcome) for outcome in await desk.redeem_batch(requests)] == [OrderTooSmall, Redeemed]
    await desk.settle("rollback", 1)
    await desk.deactivate(1)
    assert [type(outcome) for outcome in await desk.deactivate_all([0, 2])] == [CouponDeactivated] * 2
    assert (await desk.counters()).budget_committed == 0


async def test_a_merchants_scope_is_what_was_last_used_there(room: Room) -> None:
    desk = await room.open()
    await issue_many(desk, 3)
    for sequence, merchant in ((0, "tea house"), (1, "book shop")):
        await desk.redeem(sequence, merchant=merchant, hold_ms=60_000)
        await desk.settle("release", sequence)
    progress = await desk.extend(LATER, scope=Scope(merchant_id="tea house"))
    assert (await desk.write_through(progress.number)).changed == 1
    assert await expiries(desk) == [LATER, EXPIRY, EXPIRY]


async def test_what_is_used_at_a_merchant_after_an_extension_for_him_was_written_is_not_concerned(room: Room) -> None:
    desk = await room.open()
    await issue_many(desk, 3)
    progress = await desk.extend(LATER + DAY, scope=Scope(merchant_id="tea house"))
    assert (await desk.write_through(progress.number)).changed == 0
    await desk.redeem(0, merchant="tea house")
    await desk.settle("rollback", 0)
    await desk.write_through((await desk.extend(LATER, scope=Scope(user_ids=("user 0", "user 1")))).number)
    assert await expiries(desk) == [LATER, LATER, EXPIRY]


async def test_what_is_undone_takes_back_itself_and_nothing_that_came_later(room: Room) -> None:
    desk = await room.open()
    await desk.issue("ann")
    await desk.extend(LATER)
    await room.clock.set(EXPIRY)
    await desk.extend(LATER + DAY)
    await desk.undo(1)
    assert await expiries(desk) == [LATER + DAY]
    await desk.undo(2)
    assert await expiries(desk) == [EXPIRY]


async def test_what_an_extension_found_valid_it_has_lifted_whatever_is_undone_before_it_is_written(room: Room) -> None:
    desk = await room.open()
    await desk.issue("ann")
    await desk.write_through((await desk.extend(LATER, scope=Scope(user_ids=("ann",)))).number)
    await desk.write_through((await desk.extend(LATER - DAY)).number)
    await desk.undo(2)
    outage = Outage(number=1, from_ms=EXPIRY + DAY, to_ms=EXPIRY + DAY + 1, reason="down")
    await room.extensions.extend(desk.campaign, outage)
    await desk.undo(1)
    await room.extensions.write_undo_through(desk.campaign, 0, 2)
    assert (await desk.write_through(3)).changed == 1
    await room.extensions.write_undo_through(desk.campaign, 0, 1)
    assert await expiries(desk) == [EXPIRY + 1]


async def test_a_coupon_that_came_back_by_what_is_undone_is_over_again_once_that_is_written(room: Room) -> None:
    desk = await room.open(budget=Money(2500, "CNY"))
    await desk.issue("ann")
    await room.clock.set(EXPIRY)
    await desk.tidy()
    await desk.extend(LATER, include_expired=True)
    assert (await desk.write_through(1)).revived == 1
    await desk.undo(1)
    await room.extensions.write_undo_through(desk.campaign, 0, 1)
    await desk.tidy()
    counters = await desk.counters()
    assert (counters.expired, counters.budget_committed) == (1, 0)


async def test_nobody_redeems_by_the_expiry_that_is_being_undone_though_his_record_still_tells_it(room: Room) -> None:
    desk = await room.open()
    await issue_many(desk, 3)
    await desk.write_through((await desk.extend(LATER)).number)
    await desk.undo(1)
    await room.clock.set(EXPIRY)
    assert await desk.redeem(1) == Expired(EXPIRY)
    await room.extensions.write_undo_through(desk.campaign, 0, 1)
    assert await desk.redeem(1) == Expired(EXPIRY)


async def test_a_coupon_used_under_what_is_undone_keeps_it_though_its_next_use_hides_that_one(room: Room) -> None:
    desk = await room.open()
    await desk.issue("ann")
    await desk.extend(LATER)
    await desk.redeem(hold_ms=DAY)
    await desk.settle("release")
    await room.clock.advance(1)
    await desk.redeem(order="in the very millisecond of the undoing")
    await desk.undo(1)
    assert await expiries(desk) == [LATER]
    await room.extensions.write_undo_through(desk.campaign, 0, 1)
    assert await expiries(desk) == [LATER]


async def test_an_undoing_that_died_between_two_shards_is_finished_by_whoever_looks(room: Room) -> None:
    desk = await room.open(shards=3)
    for number in range(30):
        await desk.issue(f"user {number}")
    await desk.extend(LATER)
    with pytest.raises(ProcessDied):
        await ExtensionStore(DyingScripts(room.client, calls=5)).undo(desk.campaign, 1, 1, "a mistake", "ada")
    progress = await room.extensions.progress(desk.campaign, 1)
    assert progress is not None
    assert progress.undo is not None
    assert (progress.undo.total, progress.undo.reason, progress.undo.actor) == (30, "a mistake", "ada")
    assert set(await expiries(desk)) == {EXPIRY}


async def test_extensions_that_an_older_tidegate_made_go_on(room: Room) -> None:
    desk = await room.open()
    await issue_many(desk, 3)
    made = [{"made_at": LAUNCH, "until_ms": LATER, "issued": 3}]
    await room.client.hset("tg:{spring:0}:state", "extensions", msgpack.packb(made))
    await room.client.hset(
        "tg:{spring:0}:extension:1",
        mapping={"made_at": LAUNCH, "until": LATER, "total": 3, "done": 0, "changed": 0, "reason": "as asked"},
    )
    assert await expiries(desk) == [LATER] * 3
    written = await desk.write_through(1)
    assert (written.status, written.changed, written.until_ms) == (ExtensionStatus.COMPLETED, 3, LATER)
