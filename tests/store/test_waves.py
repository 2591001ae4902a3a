"""Coupons that start in waves: as many in one as in the next, none with less time than was promised."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.domain.coupon import Coupon
from service.domain.outcomes import Issued, NotYetValid, Redeemed, Replayed
from service.domain.validity import (
    Duration,
    FixedValidity,
    FixedWaves,
    RelativeValidity,
    RelativeWaves,
    wave_starts,
    zone_offsets,
)
from tests.store.desk import EXPIRY, LATER, LAUNCH, Desk, Room, at
from tests.store.test_validity import after, offsets_of

pytestmark = pytest.mark.anyio

DAY = 86_400_000
ZONE = "Europe/Berlin"
BEFORE_SUMMER = at("2026-03-27T02:30:00.001+01:00")
AT_ONCE, A_DAY = Duration(), Duration(days=1)


def fixed(count: int, first: int = LAUNCH) -> FixedValidity:
    waves = FixedWaves(A_DAY, wave_starts(first, count, A_DAY, "Asia/Shanghai"))
    return FixedValidity("Asia/Shanghai", first, EXPIRY, waves=waves)


def relative(waves: RelativeWaves, wait: Duration = AT_ONCE, duration: Duration = A_DAY) -> RelativeValidity:
    return RelativeValidity(ZONE, wait, duration, zone_offsets(ZONE, BEFORE_SUMMER), waves=waves)


async def issued(desk: Desk, coupons: int) -> list[Issued]:
    """So many coupons for as many users, issued in one batch."""
    outcomes = await desk.issue_batch([(f"user {number}", "first") for number in range(coupons)])
    return [outcome for outcome in outcomes if isinstance(outcome, Issued)]


async def test_a_fixed_start_is_spread_evenly_and_what_was_answered_is_what_is_held(room: Room) -> None:
    desk = await room.open(validity=fixed(4))
    given_out = await issued(desk, 130) + await issued(desk, 5)
    starts = Counter(coupon.starts_at_ms for coupon in given_out)
    assert set(starts) == {LAUNCH + wave * DAY for wave in range(4)}
    assert max(starts.values()) - min(starts.values()) <= 1
    for answered in given_out:
        held = await desk.coupon(answered.sequence)
        assert isinstance(held, Coupon)
        assert (held.starts_at_ms, held.expires_at_ms) == (answered.starts_at_ms, EXPIRY)


def test_fixed_waves_begin_at_the_same_time_of_day_also_across_daylight_saving() -> None:
    assert wave_starts(at("2026-03-27T09:00+01:00"), 3, A_DAY, ZONE) == (
        at("2026-03-27T09:00+01:00"),
        at("2026-03-28T09:00+01:00"),
        at("2026-03-29T09:00+02:00"),
    )


async def test_a_coupon_that_is_issued_after_its_waves_start_starts_at_once(room: Room) -> None:
    desk = await room.open(validity=fixed(4))
    await room.clock.advance(DAY + 1)
    starts = [coupon.starts_at_ms for coupon in await issued(desk, 4)]
    assert starts == [LAUNCH + DAY + 1, LAUNCH + DAY + 1, LAUNCH + 2 * DAY, LAUNCH + 3 * DAY]


async def test_each_shard_begins_with_another_wave(room: Room) -> None:
    desk = await room.open(validity=fixed(4), shards=4)
    users = {desk.known.place(f"user {number}")[0]: f"user {number}" for number in range(200)}
    starts = [await desk.issue(users[shard]) for shard in range(4)]
    assert [one.starts_at_ms for one in starts if isinstance(one, Issued)] == [LAUNCH + wave * DAY for wave in range(4)]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(2, 5),
    every=st.builds(Duration, st.integers(0, 3), st.integers(1, DAY)),
    wait=st.builds(Duration, st.integers(0, 3), st.integers(0, DAY)),
    duration=st.builds(Duration, st.integers(0, 9), st.integers(1, DAY)),
    advance_ms=st.integers(0, 10 * DAY),
    zone=st.sampled_from([ZONE, "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Chatham"]),
)
async def test_relative_waves_follow_one_another_on_the_wall_and_all_keep_their_duration(
    room: Room, count: int, every: Duration, wait: Duration, duration: Duration, advance_ms: int, zone: str
) -> None:
    await room.client.flushall()
    now_ms = BEFORE_SUMMER + advance_ms
    await room.clock.set(now_ms)
    rule = replace(relative(RelativeWaves(count, every), wait, duration), timezone=zone, offsets=offsets_of(zone))
    desk = await Room(room.client).open(validity=rule)
    first = after(now_ms, wait, zone)
    starts = [after(first, Duration(every.days * wave, every.exact_ms * wave), zone) for wave in range(count)]
    expires = after(starts[-1], duration, zone)
    for answered in await issued(desk, 2 * count + 1):
        assert answered.starts_at_ms == starts[answered.sequence % count]
        assert answered.expires_at_ms == expires
        assert await desk.issue(f"user {answered.sequence}") == Replayed(
            answered.sequence, now_ms, answered.starts_at_ms, expires
        )


async def test_a_later_wave_is_told_its_start_and_redeems_from_then_on(room: Room) -> None:
    await room.clock.set(BEFORE_SUMMER)
    desk = await room.open(validity=relative(RelativeWaves(2, Duration(days=3))))
    expires_at_ms = (await issued(desk, 2))[0].expires_at_ms
    starts_at_ms = at("2026-03-30T02:30:00.001+02:00")
    assert isinstance(await desk.redeem(0), Redeemed)
    assert await desk.redeem(1) == NotYetValid(starts_at_ms, expires_at_ms, starts_at_ms, starts_at_ms - BEFORE_SUMMER)
    await room.clock.set(starts_at_ms)
    assert isinstance(await desk.redeem(1), Redeemed)


async def test_all_waves_of_one_instant_expire_and_are_tidied_together(room: Room) -> None:
    await room.clock.set(BEFORE_SUMMER)
    desk = await room.open(validity=relative(RelativeWaves(4, A_DAY)))
    expires_at_ms = (await issued(desk, 10))[0].expires_at_ms
    await room.clock.set(expires_at_ms - 1)
    await desk.tidy()
    assert (await desk.counters()).outstanding == 10
    await room.clock.set(expires_at_ms)
    await desk.tidy()
    assert (await desk.counters()).expired == 10


async def test_an_extension_moves_the_end_of_every_wave_and_no_start(room: Room) -> None:
    desk = await room.open(validity=fixed(2))
    starts = [coupon.starts_at_ms for coupon in await issued(desk, 4)]
    await desk.write_through((await desk.extend(LATER)).number)
    held = await desk.all_coupons()
    assert [coupon.starts_at_ms for coupon in held] == starts
    assert {coupon.expires_at_ms for coupon in held} == {LATER}
