"""The store's answer to whether a campaign is open, against Python's own zones; and what merchants are told."""

from collections.abc import Iterator
from datetime import date

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from service.domain.opening import WEEK, Hours, Opening
from service.domain.outcomes import NotYetValid, Redeemed, RedemptionReplayed
from service.domain.validity import Duration, FixedValidity, RelativeValidity, zone_offsets
from service.store.configuration import pack_configuration
from service.store.scripts import behind_fragments
from tests import opening_model as model
from tests.store.desk import LATER, LAUNCH, Desk, Room, a_campaign, at

HOUR = 3_600_000
OPENINGS = behind_fragments(
    """
-- Uses     opening
local validity, answers = cmsgpack.unpack(ARGV[1]).validity, {}
for i, instant in ipairs(cmsgpack.unpack(ARGV[2])) do
  answers[i] = is_open(validity, instant) and 1 or 0
end
return answers
"""
)
WORKDAYS = Hours(("mon", "tue", "wed", "thu", "fri"), 600, 1320)
SATURDAY_NIGHT = Hours(("sat",), 1200, 120)


@pytest.fixture
def client(store_url: str) -> Iterator[Redis]:
    with Redis.from_url(store_url) as client:
        yield client


def asked(
    client: Redis, zone: str, offsets: tuple[tuple[int, int], ...], opening: Opening, when: list[int]
) -> list[bool]:
    """Whether the store finds it open at these instants."""
    validity = FixedValidity(zone, None, LATER, offsets=offsets, opening=opening)
    packed = pack_configuration(a_campaign(validity=validity), 0)
    return [answer == 1 for answer in client.eval(OPENINGS, 0, packed, msgpack.packb(when))]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), season=st.sampled_from(model.SEASONS))
def test_any_opening_in_any_season_is_open_when_the_clock_on_the_wall_says_so(
    client: Redis, data: st.DataObject, season: tuple[str, str]
) -> None:
    opening = data.draw(model.openings(season))
    when = data.draw(st.lists(model.instants(season), min_size=1, max_size=60))
    answers = asked(client, season[0], model.season_offsets(season), opening, when)
    assert answers == [model.is_open(opening, season[0], instant) for instant in when]


def open_at(client: Redis, opening: Opening, text: str, zone: str = "Europe/Berlin") -> bool:
    instant = at(text)
    (answer,) = asked(client, zone, zone_offsets(zone, instant - 30 * 24 * HOUR), opening, [instant])
    assert answer == model.is_open(opening, zone, instant)
    return answer


@pytest.mark.parametrize(
    ("opening", "first_closed", "opens", "last_open"),
    [
        (
            Opening((WORKDAYS,)),
            "2026-02-09T09:59:59.999+01:00",
            "2026-02-09T10:00:00.000+01:00",
            "2026-02-09T21:59:59.999+01:00",
        ),
        (
            Opening((SATURDAY_NIGHT,), excluded_dates=frozenset({date(2026, 2, 15)})),
            "2026-02-14T19:59:59.999+01:00",
            "2026-02-14T20:00:00.000+01:00",
            "2026-02-15T01:59:59.999+01:00",
        ),
        (
            Opening((WORKDAYS,), extra_dates=frozenset({date(2026, 2, 15)})),
            "2026-02-15T09:59:59.999+01:00",
            "2026-02-15T10:00:00.000+01:00",
            "2026-02-15T21:59:59.999+01:00",
        ),
        (
            Opening((Hours(WEEK, 120, 180),)),
            "2026-10-25T01:59:59.999+02:00",
            "2026-10-25T02:00:00.000+02:00",
            "2026-10-25T02:59:59.999+01:00",
        ),
        (
            Opening((Hours(WEEK, 150, 210),)),
            "2026-03-29T01:59:59.999+01:00",
            "2026-03-29T03:00:00.000+02:00",
            "2026-03-29T03:29:59.999+02:00",
        ),
        (
            Opening((Hours(("tue",), 0, 1440),)),
            "2028-02-28T23:59:59.999+01:00",
            "2028-02-29T00:00:00.000+01:00",
            "2028-02-29T23:59:59.999+01:00",
        ),
        (
            Opening(excluded_dates=frozenset({date(2026, 12, 31)})),
            "2026-12-31T23:59:59.999+01:00",
            "2027-01-01T00:00:00.000+01:00",
            "2027-01-01T23:59:59.999+01:00",
        ),
    ],
)
def test_doors_open_and_close_on_the_millisecond(
    client: Redis, opening: Opening, first_closed: str, opens: str, last_open: str
) -> None:
    assert not open_at(client, opening, first_closed)
    assert open_at(client, opening, opens)
    assert open_at(client, opening, last_open)


def test_an_hour_that_daylight_saving_skips_never_opens(client: Redis) -> None:
    skipped = Opening((Hours(WEEK, 120, 180),))
    assert not open_at(client, skipped, "2026-03-29T01:59:59.999+01:00")
    assert not open_at(client, skipped, "2026-03-29T03:00:00.000+02:00")


def test_a_night_is_closed_to_its_end_when_the_date_on_which_it_begins_is_excluded(client: Redis) -> None:
    excluded = Opening((SATURDAY_NIGHT,), excluded_dates=frozenset({date(2026, 2, 14)}))
    assert not open_at(client, excluded, "2026-02-14T23:00:00.000+01:00")
    assert not open_at(client, excluded, "2026-02-15T01:00:00.000+01:00")


def test_on_an_extra_date_all_hours_hold_whatever_their_days(client: Redis) -> None:
    extra = Opening((WORKDAYS, SATURDAY_NIGHT), extra_dates=frozenset({date(2026, 2, 15)}))
    for text, answer in (("10:00", True), ("21:59", True), ("23:30", True), ("09:59", False), ("03:00", False)):
        assert open_at(client, extra, f"2026-02-15T{text}:00.000+01:00") is answer
    assert open_at(client, extra, "2026-02-16T01:59:59.999+01:00")


async def opened(room: Room, opening: Opening, expires: str = "2026-02-23T23:59:59.999+08:00") -> Desk:
    """A campaign in Shanghai with that opening, and one coupon. It is Friday, a quarter to eight in the morning."""
    offsets = zone_offsets("Asia/Shanghai", LAUNCH)
    desk = await room.open(validity=FixedValidity("Asia/Shanghai", None, at(expires), offsets=offsets, opening=opening))
    await desk.issue()
    return desk


@pytest.mark.anyio
async def test_outside_the_hours_a_merchant_is_told_when_the_coupon_can_be_used(room: Room) -> None:
    desk = await opened(room, Opening((WORKDAYS,)))
    before = await room.everything()
    opens, expiry = at("2026-02-06T10:00+08:00"), desk.known.campaign.validity
    assert isinstance(expiry, FixedValidity)
    assert await desk.redeem() == NotYetValid(LAUNCH, expiry.expires_at_ms, opens, opens - LAUNCH)
    assert await room.everything() == before
    await room.clock.set(opens)
    assert isinstance(await desk.redeem(), Redeemed)
    await room.clock.set(at("2026-02-06T22:00+08:00"))
    assert isinstance(await desk.redeem(), RedemptionReplayed)


@pytest.mark.anyio
async def test_a_reservation_made_within_the_hours_is_committed_after_them(room: Room) -> None:
    desk = await opened(room, Opening((WORKDAYS,)))
    await room.clock.set(at("2026-02-06T21:59:59.999+08:00"))
    assert isinstance(await desk.redeem(hold_ms=HOUR), Redeemed)
    await room.clock.advance(1)
    assert isinstance(await desk.settle("commit"), Redeemed)


@pytest.mark.anyio
async def test_a_coupon_whose_hours_do_not_come_before_it_expires_says_so_until_it_is_extended(room: Room) -> None:
    desk = await opened(room, Opening((WORKDAYS,)), expires="2026-02-09T10:00:00+08:00")
    await room.clock.set(at("2026-02-06T22:00:00+08:00"))
    expires, friday_night = at("2026-02-09T10:00+08:00"), at("2026-02-06T22:00+08:00")
    assert await desk.redeem() == NotYetValid(LAUNCH, expires, None, None)
    await desk.extend(LATER)
    assert await desk.redeem() == NotYetValid(LAUNCH, LATER, expires, expires - friday_night)


@pytest.mark.anyio
async def test_a_coupon_that_starts_when_the_doors_are_closed_waits_for_them(room: Room) -> None:
    opening = Opening((Hours(WEEK, 600, 1320),))
    offsets = zone_offsets("Asia/Shanghai", LAUNCH)
    rule = RelativeValidity("Asia/Shanghai", Duration(days=1), Duration(days=7), offsets, opening=opening)
    desk = await room.open(validity=rule)
    await desk.issue()
    starts, opens = at("2026-02-07T07:46+08:00"), at("2026-02-07T10:00+08:00")
    await room.clock.set(at("2026-02-06T12:00+08:00"))
    refused = await desk.redeem()
    assert isinstance(refused, NotYetValid)
    assert (refused.starts_at_ms, refused.usable_at_ms) == (starts, opens)
    await room.clock.set(opens)
    assert isinstance(await desk.redeem(), Redeemed)
