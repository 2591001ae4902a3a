"""A refusal writes nothing and charges nothing: every key is compared byte for byte before and after."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from service.domain.benefit import Amount, Percent, RedEnvelope
from service.domain.campaign import CampaignStatus
from service.domain.limits import DailyLimits, HolderLimits
from service.domain.money import Money, Rate
from service.domain.outcomes import (
    AlreadyRedeemed,
    BudgetExhausted,
    CampaignNotRunning,
    CouponDeactivated,
    DailyLimit,
    Deactivated,
    Expired,
    IssuancePaused,
    Issued,
    NotYetValid,
    OrderAmountRequired,
    OrderTooSmall,
    PerMerchantLimit,
    PerOrderLimit,
    PerUserDailyLimit,
    PerUserLimit,
    QuotaRaised,
    QuotaTooHigh,
    RateLimited,
    Redeemed,
    RedemptionReplayed,
    Replayed,
    ReservedElsewhere,
    SoldOut,
    TooManyAttempts,
    UnknownCode,
    WrongRedemptionStatus,
)
from service.domain.validity import FixedValidity, zone_offsets
from service.store import coupons
from service.store.coupons import RedeemRequest, SettleVerb
from tests.store.desk import EXPIRY, LAUNCH, Desk, Room

pytestmark = pytest.mark.anyio

SCARCE = Rate(1, 1)
MINUTE = 60_000
Ask = Callable[[Desk], Awaitable[object]]


def asks(verb: str, *arguments: Any, **named: Any) -> Ask:
    return lambda desk: getattr(desk, verb)(*arguments, **named)


ISSUE = asks("issue", "ann", "first")
REDEEM = asks("redeem", 0)
HOLD = asks("redeem", 0, hold_ms=MINUTE)
RELEASE = asks("settle", "release")
ROLLBACK = asks("settle", "rollback")
REDEEM_ELSEWHERE = asks("redeem", 0, merchant="another")
ZONE = zone_offsets("Asia/Shanghai", LAUNCH)
FUTURE = FixedValidity("Asia/Shanghai", LAUNCH + 1, EXPIRY)

REFUSALS: dict[str, tuple[dict[str, Any], list[Ask], Ask, type]] = {
    "paused": ({"status": CampaignStatus.PAUSED}, [], ISSUE, IssuancePaused),
    "not running": ({"status": CampaignStatus.STOPPED}, [], ISSUE, CampaignNotRunning),
    "over the user's cap": ({"max_coupons_per_user": 1}, [ISSUE], asks("issue", "ann", "second"), PerUserLimit),
    "sold out": ({"max_coupons": 1}, [ISSUE], asks("issue", "bob"), SoldOut),
    "out of budget": ({"budget": Money(4999, "CNY")}, [ISSUE], asks("issue", "bob"), BudgetExhausted),
    "over the user's rate": ({"user_rate": SCARCE}, [ISSUE], asks("issue", "ann", "second"), RateLimited),
    "over the campaign's rate": (
        {"issue_rate": SCARCE, "user_rate": Rate(1, 5)},
        [ISSUE],
        asks("issue", "bob"),
        RateLimited,
    ),
    "issued before": ({"user_rate": Rate(1, 5)}, [ISSUE], ISSUE, Replayed),
    "redeemed already": ({"merchant_rate": SCARCE}, [ISSUE, REDEEM], REDEEM_ELSEWHERE, AlreadyRedeemed),
    "redeemed by this very order": ({"merchant_rate": SCARCE}, [ISSUE, REDEEM], REDEEM, RedemptionReplayed),
    "reserved elsewhere": ({"merchant_rate": Rate(1, 5)}, [ISSUE, HOLD], REDEEM_ELSEWHERE, ReservedElsewhere),
    "deactivated": ({"merchant_rate": SCARCE}, [ISSUE, asks("deactivate")], REDEEM, Deactivated),
    "deactivated before": ({}, [ISSUE, asks("deactivate")], asks("deactivate"), CouponDeactivated),
    "not yet valid": ({"validity": FUTURE, "merchant_rate": SCARCE}, [ISSUE], REDEEM, NotYetValid),
    "order too small": (
        {"benefit": Amount(2500, "CNY", min_order_amount=100), "merchant_rate": SCARCE},
        [ISSUE],
        asks("redeem", 0, amount=99),
        OrderTooSmall,
    ),
    "an unknown amount to take a percentage of": (
        {"benefit": Percent(20, 2500, "CNY"), "merchant_rate": SCARCE},
        [ISSUE],
        REDEEM,
        OrderAmountRequired,
    ),
    "over the order's limit": (
        {"holder_limits": HolderLimits(1, None), "merchant_rate": Rate(1, 5)},
        [ISSUE, asks("issue", "bob"), REDEEM],
        asks("redeem", 1),
        PerOrderLimit,
    ),
    "over the merchant's limit": (
        {"holder_limits": HolderLimits(None, 1), "merchant_rate": Rate(1, 5)},
        [ISSUE, asks("issue", "bob"), REDEEM],
        asks("redeem", 1, "another"),
        PerMerchantLimit,
    ),
    "over the user's limit of the day": (
        {"daily_limits": DailyLimits(None, 1, ZONE), "user_rate": Rate(1, 5)},
        [ISSUE],
        asks("issue", "ann", "second"),
        PerUserDailyLimit,
    ),
    "over the limit of the day": (
        {"daily_limits": DailyLimits(1, None, ZONE), "user_rate": Rate(1, 5)},
        [ISSUE],
        asks("issue", "bob"),
        DailyLimit,
    ),
    "no share left in the pot": (
        {"benefit": RedEnvelope(10, 1, 1, "CNY"), "max_coupons": 1, "budget": None},
        [ISSUE],
        asks("issue", "bob"),
        SoldOut,
    ),
    "drawn before": ({"benefit": RedEnvelope(10, 2, 1, "CNY"), "max_coupons": 2}, [ISSUE], ISSUE, Replayed),
    "over an earned quota": (
        {"max_coupons_per_user": 1, "max_quota_per_user": 2},
        [asks("raise_quota", "ann", 2), ISSUE, asks("issue", "ann", "second")],
        asks("issue", "ann", "third"),
        PerUserLimit,
    ),
    "a quota above the maximum": ({"max_quota_per_user": 30}, [], asks("raise_quota", "ann", 31), QuotaTooHigh),
    "a quota that he has": (
        {"max_quota_per_user": 30},
        [asks("raise_quota", "ann", 25)],
        asks("raise_quota", "ann", 24),
        QuotaRaised,
    ),
    "nothing of a user to deactivate": ({}, [ISSUE, REDEEM], asks("deactivate_user", "ann"), list),
    "nothing of a list to deactivate": ({}, [ISSUE, HOLD], asks("deactivate", 7, 0), ReservedElsewhere),
    "tried too often": (
        {},
        [ISSUE, HOLD, RELEASE, REDEEM, asks("settle", "rollback", attempt=2)],
        REDEEM,
        TooManyAttempts,
    ),
    "over the merchant's rate": (
        {"merchant_rate": SCARCE},
        [ISSUE, asks("issue", "bob"), REDEEM],
        asks("redeem", 1),
        RateLimited,
    ),
    "no such coupon": ({"merchant_rate": SCARCE}, [ISSUE], asks("redeem", 1), UnknownCode),
    "no such attempt": ({}, [ISSUE, HOLD], asks("settle", "commit", attempt=2), UnknownCode),
    "attempt superseded": ({}, [ISSUE, HOLD, RELEASE, HOLD], RELEASE, WrongRedemptionStatus),
    "rolled back while only reserved": ({}, [ISSUE, HOLD], ROLLBACK, WrongRedemptionStatus),
    "released when committed": ({}, [ISSUE, REDEEM], RELEASE, WrongRedemptionStatus),
    "released before": ({}, [ISSUE, HOLD, RELEASE], RELEASE, RedemptionReplayed),
    "deactivated while reserved": ({}, [ISSUE, HOLD], asks("deactivate"), ReservedElsewhere),
    "deactivated after redemption": ({}, [ISSUE, REDEEM], asks("deactivate"), AlreadyRedeemed),
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_a_refusal_changes_nothing(room: Room, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coupons, "MAX_ATTEMPTS", 2)
    changes, story, ask, refusal = REFUSALS[kind]
    desk = await room.open(**changes)
    for step in story:
        await step(desk)
    before = await room.everything()
    assert type(await ask(desk)) is refusal
    assert await room.everything() == before


@pytest.mark.parametrize("ask", [REDEEM, asks("deactivate"), ISSUE], ids=["redeem", "deactivate", "issue again"])
async def test_a_coupon_past_its_time_is_refused_without_being_touched(room: Room, ask: Ask) -> None:
    desk = await room.open(merchant_rate=SCARCE)
    await desk.issue("ann", "first")
    await room.clock.set(EXPIRY)
    before = await room.everything()
    assert type(await ask(desk)) in (Expired, Replayed)
    assert await room.everything() == before


@pytest.mark.parametrize("verb", ["commit", "rollback"])
async def test_a_reservation_past_its_time_is_refused_without_being_touched(room: Room, verb: SettleVerb) -> None:
    desk = await room.open()
    await ISSUE(desk)
    await HOLD(desk)
    await room.clock.advance(MINUTE)
    before = await room.everything()
    assert await desk.settle(verb) == WrongRedemptionStatus("released")
    assert await room.everything() == before


async def test_whoever_is_refused_in_a_batch_that_grants_others_is_charged_nothing(room: Room) -> None:
    desk = await room.open(user_rate=Rate(1, 5), merchant_rate=Rate(1, 5), max_coupons_per_user=2)
    await desk.issue_batch([("ann", "1"), ("ann", "2")])
    await desk.redeem(0)
    held, charged = "tg:{spring:0}:users:" + str(desk.known.place("ann")[1]), "tg:{spring:0}:merchants"
    before = await room.client.hget(held, "ann"), await room.client.hget(charged, "tea house")
    outcomes = await desk.issue_batch([("ann", "3"), ("bob", "1"), ("ann", "4")])
    assert [type(outcome) for outcome in outcomes] == [PerUserLimit, Issued, PerUserLimit]
    wanted = [RedeemRequest(0, "tea house", "late", None, 0), RedeemRequest(1, "book shop", "order", None, 0)]
    assert [type(outcome) for outcome in await desk.redeem_batch(wanted)] == [AlreadyRedeemed, Redeemed]
    assert before == (await room.client.hget(held, "ann"), await room.client.hget(charged, "tea house"))


async def test_reading_changes_nothing(room: Room) -> None:
    desk = await room.open()
    for ask in (ISSUE, HOLD):
        await ask(desk)
    progress = await desk.extend()
    await room.clock.advance(MINUTE)
    before = await room.everything()
    await desk.coupon()
    await room.coupons.user_coupons(desk.known, "ann")
    await room.extensions.progress(desk.campaign, progress.number)
    await desk.counters()
    assert await room.everything() == before


async def test_tidying_where_nothing_is_due_changes_nothing(room: Room) -> None:
    desk = await room.open()
    await ISSUE(desk)
    await room.clock.advance(MINUTE)
    before = await room.everything()
    await desk.tidy()
    assert await room.everything() == before
