"""What a merchant gets who redeems a coupon, holds it, and settles it afterwards."""

from dataclasses import replace

import pytest

from service.domain.benefit import Amount
from service.domain.campaign import CampaignStatus
from service.domain.coupon import Coupon, CouponStatus, Redemption, RedemptionStatus
from service.domain.outcomes import (
    AlreadyRedeemed,
    CouponDeactivated,
    Deactivated,
    Expired,
    NotYetValid,
    OrderTooSmall,
    Redeemed,
    RedemptionReplayed,
    ReservedElsewhere,
    UnknownCode,
    WrongRedemptionStatus,
)
from service.domain.validity import FixedValidity
from service.store.coupons import RedeemRequest, SettleVerb
from tests.store.desk import EXPIRY, LAUNCH, Desk, Room

pytestmark = pytest.mark.anyio

MINUTE = 60_000
COMMITTED = Redemption(0, 0, 1, "tea house", "order", RedemptionStatus.COMMITTED, 2500, LAUNCH, None)
RESERVED = replace(COMMITTED, status=RedemptionStatus.RESERVED, hold_expires_at_ms=LAUNCH + MINUTE)


async def opened(room: Room, **changes: object) -> Desk:
    """A desk that has issued one coupon."""
    desk = await room.open(**changes)
    await desk.issue()
    return desk


async def status_of(desk: Desk) -> CouponStatus:
    coupon = await desk.coupon()
    assert isinstance(coupon, Coupon)
    return coupon.status


async def ledger_of(desk: Desk) -> tuple[int, int, int, int, int]:
    counters = await desk.counters()
    assert counters.budget_committed == 2500 * (counters.outstanding + counters.reserved + counters.redeemed)
    return counters.outstanding, counters.reserved, counters.redeemed, counters.expired, counters.deactivated


async def test_a_coupon_is_redeemed_once(room: Room) -> None:
    desk = await opened(room)
    assert await desk.redeem() == Redeemed(COMMITTED)
    assert await desk.redeem(order="another") == AlreadyRedeemed()
    assert await desk.redeem(merchant="another") == AlreadyRedeemed()
    assert await status_of(desk) is CouponStatus.REDEEMED
    assert await ledger_of(desk) == (0, 0, 1, 0, 0)


async def test_the_same_order_again_is_the_same_redemption(room: Room) -> None:
    desk = await opened(room)
    await desk.redeem()
    await room.clock.set(EXPIRY + 1)
    assert await desk.redeem() == RedemptionReplayed(COMMITTED)


async def test_in_one_batch_a_coupon_is_redeemed_once_too(room: Room) -> None:
    desk = await opened(room)
    request = RedeemRequest(0, "tea house", "order", None, 0)
    outcomes = await desk.redeem_batch([request, request, replace(request, order_id="another")])
    assert outcomes == [Redeemed(COMMITTED), RedemptionReplayed(COMMITTED), AlreadyRedeemed()]


async def test_in_one_batch_what_is_held_is_redeemed_by_nobody_else(room: Room) -> None:
    desk = await opened(room)
    held = RedeemRequest(0, "tea house", "order", None, 60_000)
    outcomes = await desk.redeem_batch([held, RedeemRequest(0, "book shop", "order", None, 0)])
    assert [type(outcome) for outcome in outcomes] == [Redeemed, ReservedElsewhere]
    assert (await desk.counters()).reserved == 1


async def test_a_batch_tells_of_whom_it_redeemed_and_of_whom_it_reserved_and_of_nobody_else(room: Room) -> None:
    desk = await room.open()
    await desk.issue_batch([(f"user {number}", "first") for number in range(6)])
    await desk.redeem(sequence=3, hold_ms=MINUTE)
    await desk.settle("release", sequence=3)
    told = len(await room.events())
    first, held, second = (
        RedeemRequest(sequence, "tea house", f"order {sequence}", None, hold_ms)
        for sequence, hold_ms in ((0, 0), (1, MINUTE), (3, 0))
    )
    refused = replace(first, order_id="another")
    await desk.redeem_batch([first, refused, held, first, second, replace(first, sequence=9)])
    await desk.redeem_batch([replace(first, sequence=sequence, order_id=f"late {sequence}") for sequence in (5, 4)])
    assert [(event.type, list(event.coupons), event.data["redemptions"]) for event in (await room.events())[told:]] == [
        ("coupon.reserved", [1], [[1, "tea house", "order 1", 2500]]),
        ("coupon.redeemed", [0, 3], [[1, "tea house", "order 0", 2500], [2, "tea house", "order 3", 2500]]),
        ("coupon.redeemed", [5, 4], [[1, "tea house", "late 5", 2500], [1, "tea house", "late 4", 2500]]),
    ]


@pytest.mark.parametrize("status", [CampaignStatus.PAUSED, CampaignStatus.STOPPED, CampaignStatus.ENDED])
async def test_redemption_works_while_nothing_is_issued(room: Room, status: CampaignStatus) -> None:
    desk = await opened(room)
    await desk.change(status=status)
    assert await desk.redeem() == Redeemed(COMMITTED)


@pytest.mark.parametrize(("amount", "discount"), [(None, 2500), (9999, 2500), (2500, 2500), (1999, 1999)])
async def test_the_discount_is_never_more_than_the_order(room: Room, amount: int | None, discount: int) -> None:
    desk = await opened(room)
    assert await desk.redeem(amount=amount) == Redeemed(replace(COMMITTED, discount_amount=discount))


async def test_an_order_below_the_least_amount_is_refused(room: Room) -> None:
    desk = await opened(room, benefit=Amount(2500, "CNY", min_order_amount=3000))
    assert await desk.redeem(amount=2999) == OrderTooSmall(3000)
    assert await desk.redeem(amount=3000) == Redeemed(COMMITTED)


async def test_validity_is_checked_to_the_millisecond(room: Room) -> None:
    desk = await opened(room, validity=FixedValidity("Asia/Shanghai", LAUNCH + 1000, EXPIRY))
    await desk.issue("bob")
    await room.clock.advance(999)
    assert await desk.redeem() == NotYetValid(LAUNCH + 1000, EXPIRY, LAUNCH + 1000, 1)
    await room.clock.advance(1)
    assert isinstance(await desk.redeem(), Redeemed)
    await room.clock.set(EXPIRY - 1)
    await desk.issue("eve")
    assert isinstance(await desk.redeem(1), Redeemed)
    await room.clock.set(EXPIRY)
    assert await desk.redeem(2) == Expired(EXPIRY)


async def test_a_reservation_keeps_everybody_else_out_until_it_lapses(room: Room) -> None:
    desk = await opened(room)
    assert await desk.redeem(hold_ms=MINUTE) == Redeemed(RESERVED)
    assert await status_of(desk) is CouponStatus.RESERVED
    assert await ledger_of(desk) == (0, 1, 0, 0, 0)
    await room.clock.advance(MINUTE - 1)
    assert await desk.redeem(hold_ms=MINUTE) == RedemptionReplayed(RESERVED)
    assert await desk.redeem(order="another") == ReservedElsewhere(retry_after_ms=1)
    await room.clock.advance(1)
    assert await status_of(desk) is CouponStatus.ISSUED
    assert isinstance(await desk.redeem(order="another"), Redeemed)
    assert await ledger_of(desk) == (0, 0, 1, 0, 0)


async def test_a_reservation_is_committed_once_and_then_stands(room: Room) -> None:
    desk = await opened(room)
    await desk.redeem(hold_ms=MINUTE)
    assert await desk.settle("commit") == Redeemed(COMMITTED)
    assert await desk.settle("commit") == RedemptionReplayed(COMMITTED)
    assert await desk.settle("release") == WrongRedemptionStatus("committed")
    await room.clock.advance(MINUTE)
    assert await status_of(desk) is CouponStatus.REDEEMED
    assert await ledger_of(desk) == (0, 0, 1, 0, 0)


@pytest.mark.parametrize(("verb", "hold_ms"), [("commit", MINUTE), ("release", MINUTE), ("rollback", 0)])
async def test_why_a_redemption_was_settled_stands_in_its_event(room: Room, verb: SettleVerb, hold_ms: int) -> None:
    desk = await opened(room)
    await desk.redeem(hold_ms=hold_ms)
    await desk.settle(verb)
    assert [event.data.get("reason") for event in await room.events()] == [None, None, "as asked"]


async def test_a_released_coupon_is_free_again(room: Room) -> None:
    desk = await opened(room)
    await desk.redeem(hold_ms=MINUTE)
    released = replace(COMMITTED, status=RedemptionStatus.RELEASED)
    assert await desk.settle("release") == Redeemed(released)
    assert await desk.settle("release") == RedemptionReplayed(released)
    assert await desk.settle("commit") == WrongRedemptionStatus("released")
    assert await ledger_of(desk) == (1, 0, 0, 0, 0)
    assert await desk.redeem(order="another") == Redeemed(replace(COMMITTED, attempt=2, order_id="another"))


async def test_a_redemption_rolled_back_frees_the_coupon_and_the_same_order_may_redeem_anew(room: Room) -> None:
    desk = await opened(room)
    await desk.redeem()
    assert await desk.settle("rollback") == Redeemed(replace(COMMITTED, status=RedemptionStatus.ROLLED_BACK))
    assert await ledger_of(desk) == (1, 0, 0, 0, 0)
    assert await desk.redeem() == Redeemed(replace(COMMITTED, attempt=2))
    assert await desk.settle("rollback", attempt=1) == WrongRedemptionStatus("superseded")
    assert isinstance(await desk.settle("rollback", attempt=2), Redeemed)


async def test_a_lapsed_reservation_cannot_be_committed(room: Room) -> None:
    desk = await opened(room)
    await desk.redeem(hold_ms=MINUTE)
    await room.clock.advance(MINUTE)
    assert await desk.settle("commit") == WrongRedemptionStatus("released")
    assert isinstance(await desk.settle("release"), RedemptionReplayed)
    await desk.redeem(order="another", hold_ms=MINUTE)
    assert await desk.settle("commit") == WrongRedemptionStatus("superseded")
    assert isinstance(await desk.settle("commit", attempt=2), Redeemed)


async def test_a_reservation_made_in_time_is_committed_after_the_coupons_validity(room: Room) -> None:
    desk = await opened(room)
    await room.clock.set(EXPIRY - 1)
    await desk.redeem(hold_ms=MINUTE)
    await room.clock.set(EXPIRY + 1)
    assert isinstance(await desk.settle("commit"), Redeemed)


@pytest.mark.parametrize("verb", ["release", "rollback"])
async def test_a_coupon_given_back_after_its_time_expires_and_its_money_returns(room: Room, verb: SettleVerb) -> None:
    desk = await opened(room)
    await room.clock.set(EXPIRY - 1)
    await desk.redeem(hold_ms=MINUTE if verb == "release" else 0)
    await room.clock.set(EXPIRY)
    assert isinstance(await desk.settle(verb), Redeemed)
    assert await desk.redeem(order="another") == Expired(EXPIRY)
    assert await ledger_of(desk) == (0, 0, 0, 1, 0)


async def test_a_deactivated_coupon_is_gone_and_its_money_returns(room: Room) -> None:
    desk = await opened(room)
    outcome = await desk.deactivate()
    assert isinstance(outcome, CouponDeactivated)
    assert outcome.coupon.status is CouponStatus.DEACTIVATED
    assert await desk.deactivate() == outcome
    assert await desk.redeem() == Deactivated()
    assert await ledger_of(desk) == (0, 0, 0, 0, 1)


async def test_only_a_coupon_that_is_free_can_be_deactivated(room: Room) -> None:
    desk = await opened(room)
    await desk.redeem(hold_ms=MINUTE)
    assert await desk.deactivate() == ReservedElsewhere(MINUTE)
    await room.clock.advance(MINUTE)
    assert isinstance(await desk.deactivate(), CouponDeactivated)
    await desk.issue("bob")
    await desk.redeem(1)
    assert await desk.deactivate(1) == AlreadyRedeemed()
    await room.clock.set(EXPIRY - 1)
    await desk.issue("eve")
    await room.clock.set(EXPIRY)
    assert await desk.deactivate(2) == Expired(EXPIRY)
    assert await ledger_of(desk) == (1, 0, 1, 0, 1)


async def test_what_was_never_issued_is_unknown(room: Room) -> None:
    desk = await opened(room)
    assert await desk.redeem(1) == UnknownCode()
    assert await desk.coupon(1) == UnknownCode()
    assert await desk.deactivate(1) == UnknownCode()
    assert await desk.settle("commit") == UnknownCode()
    await desk.redeem()
    assert await desk.settle("commit", attempt=2) == UnknownCode()
    assert await desk.settle("commit", attempt=0) == UnknownCode()
