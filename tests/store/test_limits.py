"""Limits by the day, the order and the merchant hold exactly; an earned quota raises one user's cap and no other's."""

from dataclasses import replace
from datetime import date

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from service.domain.limits import DailyLimits, HolderLimits
from service.domain.outcomes import (
    DailyLimit,
    Issued,
    PerMerchantLimit,
    PerOrderLimit,
    PerUserDailyLimit,
    PerUserLimit,
    QuotaRaised,
    QuotaTooHigh,
    Redeemed,
    RedemptionReplayed,
    Replayed,
    SoldOut,
)
from service.domain.validity import zone_offsets
from service.store.coupons import RedeemRequest
from service.store.scripts import behind_fragments
from tests.store.desk import LAUNCH, Desk, Room, at
from tests.store.model_rules import day_of, until_tomorrow_ms

pytestmark = pytest.mark.anyio

ZONE = "Asia/Shanghai"
MINUTE, DAY = 60_000, 86_400_000
TILL_MIDNIGHT = at("2026-02-07T00:00+08:00") - LAUNCH


def daily(in_all: int | None, per_user: int | None, zone: str = ZONE) -> DailyLimits:
    return DailyLimits(in_all, per_user, zone_offsets(zone, LAUNCH))


async def served(desk: Desk, users: int) -> int:
    """How many of so many users get a coupon."""
    outcomes = [await desk.issue(f"user {number}") for number in range(users)]
    return sum(isinstance(outcome, Issued) for outcome in outcomes)


async def with_coupons(room: Room, coupons: int, **terms: object) -> Desk:
    """A desk that has given so many coupons to as many users."""
    desk = await room.open(**terms)
    assert await served(desk, coupons) == coupons
    return desk


async def test_the_day_of_the_zone_limits_the_campaign_and_ends_at_its_midnight(room: Room) -> None:
    desk = await room.open(daily_limits=daily(2, None))
    assert await served(desk, 3) == 2
    assert await desk.issue("late") == DailyLimit(TILL_MIDNIGHT)
    await room.clock.advance(TILL_MIDNIGHT - 1)
    assert await desk.issue("late") == DailyLimit(1)
    await room.clock.advance(1)
    assert isinstance(await desk.issue("late"), Issued)
    assert isinstance(await desk.issue("user 0"), Replayed)
    assert isinstance(await desk.issue("later"), Issued)
    assert await desk.issue("too late") == DailyLimit(DAY)


async def test_the_day_limits_each_user_also_within_a_batch(room: Room) -> None:
    desk = await room.open(daily_limits=daily(None, 2))
    outcomes = await desk.issue_batch([("ann", "1"), ("bob", "1"), ("ann", "2"), ("ann", "3"), ("bob", "2")])
    assert [type(outcome) for outcome in outcomes] == [Issued, Issued, Issued, PerUserDailyLimit, Issued]
    await room.clock.advance(TILL_MIDNIGHT)
    outcomes = await desk.issue_batch([("ann", "3"), ("ann", "4"), ("ann", "5")])
    assert [type(outcome) for outcome in outcomes] == [Issued, Issued, PerUserDailyLimit]


async def test_a_clock_that_steps_back_over_midnight_opens_no_second_day(room: Room) -> None:
    desk = await room.open(daily_limits=daily(2, None))
    await room.clock.advance(TILL_MIDNIGHT)
    assert await served(desk, 2) == 2
    await room.clock.advance(-1)
    assert await desk.issue("late") == DailyLimit(DAY + 1)


async def test_days_of_which_nobody_took_anything_leave_nothing_over(room: Room) -> None:
    desk = await room.open(daily_limits=daily(2, None))
    await desk.issue("ann")
    await room.clock.advance(5 * DAY)
    assert await served(desk, 3) == 2


async def test_the_limit_of_a_day_is_divided_over_the_shards_exactly(room: Room) -> None:
    desk = await room.open(daily_limits=daily(7, None), shards=3)
    for _ in range(2):
        assert sum([isinstance(await desk.issue(f"{room.clock.now_ms} {n}"), Issued) for n in range(60)]) == 7
        await room.clock.advance(DAY)


async def test_a_limit_of_a_day_can_be_set_raised_and_removed(room: Room) -> None:
    desk = await room.open()
    await desk.issue("ann")
    await desk.change(daily_limits=daily(1, None))
    assert isinstance(await desk.issue("bob"), Issued)
    assert isinstance(await desk.issue("eve"), DailyLimit)
    await desk.change(daily_limits=daily(2, None))
    assert isinstance(await desk.issue("eve"), Issued)
    await desk.change(daily_limits=None)
    assert isinstance(await desk.issue("zoe"), Issued)


def test_days_begin_and_end_when_calendars_say_so_in_every_zone(store_url: str) -> None:
    source = """
    local offsets, now = cmsgpack.unpack(ARGV[1]), tonumber(ARGV[2])
    local day = day_at(offsets, now)
    return { day, integer(instant_of((day + 1) * DAY_MS, offsets) - now) }
    """
    zones = ["Asia/Shanghai", "Europe/Berlin", "America/St_Johns", "Africa/Cairo", "America/Santiago", "UTC"]
    offsets = {zone: zone_offsets(zone, LAUNCH) for zone in zones}
    changes = {zone: [change for change, _ in offsets[zone] if change > LAUNCH] for zone in zones}
    with Redis.from_url(store_url) as client:
        ask = client.register_script(behind_fragments(f"-- Uses     state, validity\n{source}"))

        @settings(max_examples=200, deadline=None)
        @given(st.sampled_from(zones).flatmap(lambda zone: st.tuples(st.just(zone), instants(changes[zone]))))
        def agrees(place: tuple[str, int]) -> None:
            zone, now_ms = place
            flat = msgpack.packb([number for offset in offsets[zone] for number in offset])
            day, left_ms = ask(args=[flat, now_ms])
            assert day == (day_of(now_ms, zone) - date(1970, 1, 1)).days
            assert int(left_ms) == until_tomorrow_ms(now_ms, zone)

        agrees()


def instants(changes: list[int]) -> st.SearchStrategy[int]:
    """Instants of the next years, many of them around a change of the zone's offset."""
    anywhere = st.integers(LAUNCH, LAUNCH + 3_000 * DAY)
    if not changes:
        return anywhere
    return anywhere | st.tuples(st.sampled_from(changes), st.integers(-2 * DAY, 2 * DAY)).map(sum)


async def test_a_quota_raises_one_users_cap_up_to_the_maximum_and_no_others(room: Room) -> None:
    desk = await room.open(max_coupons_per_user=1, max_quota_per_user=3)
    await desk.issue("ann", "1")
    assert await desk.issue("ann", "2") == PerUserLimit()
    assert await desk.raise_quota("ann", 2) == QuotaRaised(2)
    assert isinstance(await desk.issue("ann", "2"), Issued)
    assert await desk.issue("ann", "3") == PerUserLimit()
    assert await desk.raise_quota("ann", 4) == QuotaTooHigh(3)
    assert await desk.raise_quota("ann", 3) == QuotaRaised(3)
    assert [type(o) for o in await desk.issue_batch([("ann", "3"), ("ann", "4")])] == [Issued, PerUserLimit]
    await desk.issue("bob", "1")
    assert await desk.issue("bob", "2") == PerUserLimit()
    events = [event.data for event in await room.events() if event.type == "quota.raised"]
    assert events == [{"user_id": "ann", "max_coupons": most, "reason": "a referral"} for most in (2, 3)]


async def test_a_quota_is_never_lowered_and_never_above_the_campaigns_maximum(room: Room) -> None:
    desk = await room.open(max_coupons_per_user=1, max_quota_per_user=5)
    assert await desk.raise_quota("ann", 5) == QuotaRaised(5)
    assert await desk.raise_quota("ann", 2) == QuotaRaised(5)
    await desk.change(max_quota_per_user=2)
    assert await desk.raise_quota("ann", 1) == QuotaRaised(2)
    await desk.change(max_quota_per_user=None)
    assert await desk.raise_quota("ann", 2) == QuotaTooHigh(1)
    await desk.issue("ann", "1")
    assert await desk.issue("ann", "2") == PerUserLimit()


async def test_a_quota_gives_nobody_more_than_there_is(room: Room) -> None:
    desk = await room.open(max_coupons=2, max_coupons_per_user=1, max_quota_per_user=9)
    await desk.raise_quota("ann", 9)
    outcomes = await desk.issue_batch([("ann", str(number)) for number in range(3)])
    assert [type(outcome) for outcome in outcomes] == [Issued, Issued, SoldOut]


async def test_an_order_takes_no_more_coupons_than_it_may(room: Room) -> None:
    desk = await with_coupons(room, 4, holder_limits=HolderLimits(2, None))
    assert isinstance(await desk.redeem(0), Redeemed)
    assert isinstance(await desk.redeem(1, hold_ms=MINUTE), Redeemed)
    assert await desk.redeem(2) == PerOrderLimit()
    assert isinstance(await desk.redeem(0), RedemptionReplayed)
    assert isinstance(await desk.redeem(2, merchant="another"), Redeemed)
    assert isinstance(await desk.redeem(3, order="another"), Redeemed)


async def test_an_order_takes_no_more_within_a_batch_either(room: Room) -> None:
    desk = await with_coupons(room, 3, holder_limits=HolderLimits(1, None))
    wanted = [RedeemRequest(sequence, "tea house", "order", None, 0) for sequence in range(3)]
    outcomes = await desk.redeem_batch([*wanted, replace(wanted[1], order_id="another")])
    assert [type(outcome) for outcome in outcomes] == [Redeemed, PerOrderLimit, PerOrderLimit, Redeemed]


async def test_a_merchant_takes_no_more_within_a_batch_and_loses_what_another_takes_over(room: Room) -> None:
    desk = await with_coupons(room, 3, holder_limits=HolderLimits(None, 1))
    tea = [RedeemRequest(sequence, "tea house", f"order {sequence}", None, MINUTE) for sequence in range(3)]
    assert [type(outcome) for outcome in await desk.redeem_batch(tea[:2])] == [Redeemed, PerMerchantLimit]
    await room.clock.advance(MINUTE)
    outcomes = await desk.redeem_batch([replace(tea[0], merchant_id="book shop"), *tea[1:]])
    assert [type(outcome) for outcome in outcomes] == [Redeemed, Redeemed, PerMerchantLimit]


@pytest.mark.parametrize("freed", ["release", "rollback", "lapse", "lapse untidied", "taken over"])
async def test_an_order_and_a_merchant_that_gave_a_coupon_back_may_take_another(room: Room, freed: str) -> None:
    desk = await with_coupons(room, 2, holder_limits=HolderLimits(1, 1))
    await desk.redeem(0, hold_ms=0 if freed == "rollback" else MINUTE)
    assert await desk.redeem(1) == PerOrderLimit()
    assert await desk.redeem(1, order="another") == PerMerchantLimit()
    match freed:
        case "release" | "rollback":
            await desk.settle(freed, 0)
        case "lapse":
            await room.clock.advance(MINUTE)
            await desk.tidy()
        case "lapse untidied":
            await room.clock.advance(MINUTE)
            assert await desk.redeem(1) == PerMerchantLimit()
            await desk.tidy()
        case "taken over":
            await room.clock.advance(MINUTE)
            assert isinstance(await desk.redeem(0, merchant="another"), Redeemed)
    assert isinstance(await desk.redeem(1), Redeemed)


async def test_a_reservation_that_is_committed_counts_once(room: Room) -> None:
    desk = await with_coupons(room, 3, holder_limits=HolderLimits(2, 2))
    await desk.redeem(0, hold_ms=MINUTE)
    await desk.settle("commit", 0)
    assert isinstance(await desk.redeem(1), Redeemed)
    assert await desk.redeem(2) == PerOrderLimit()


async def test_the_index_of_orders_is_gone_with_the_last_coupon_given_back(room: Room) -> None:
    desk = await with_coupons(room, 3, holder_limits=HolderLimits(2, 2))
    await desk.deactivate(2)
    before = await room.key_names()
    for sequence in (0, 1):
        await desk.redeem(sequence, hold_ms=MINUTE)
    assert len(await room.key_names()) == len(before) + 3
    for sequence in (0, 1):
        await desk.settle("release", sequence)
    assert await room.key_names() == before


async def test_a_merchant_takes_no_more_over_all_shards_than_it_may(room: Room) -> None:
    desk = await room.open(holder_limits=HolderLimits(None, 5), shards=3)
    await served(desk, 30)
    outcomes = [
        await desk.redeem(sequence, order=f"order {shard} {sequence}", shard=shard)
        for shard in range(3)
        for sequence in range(5)
    ]
    assert sum(isinstance(outcome, Redeemed) for outcome in outcomes) == 5
    assert {type(outcome) for outcome in outcomes} == {Redeemed, PerMerchantLimit}
