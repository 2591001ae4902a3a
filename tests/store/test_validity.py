"""The store's arithmetic with calendar days against Python's own zones, over their changes of offset."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from service.domain.validity import Duration, RelativeValidity, zone_offsets
from service.store.configuration import pack_configuration
from service.store.scripts import behind_fragments
from tests.store.desk import LAUNCH, a_campaign, at

DAY = 86_400_000
HOUR = 3_600_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HORIZON_DAYS = 3_600
"""A little less than a campaign knows its zone's offsets for."""

WINDOWS = behind_fragments(
    """
-- Uses     validity
local validity, windows = cmsgpack.unpack(ARGV[1]).validity, {}
for _, issued_at in ipairs(cmsgpack.unpack(ARGV[2])) do
  local starts_at, expires_at = window_of(validity, issued_at, {}, 0)
  windows[#windows + 1] = starts_at
  windows[#windows + 1] = expires_at
end
return windows
"""
)

ODD_ZONES = [
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Asuncion",
    "America/Havana",
    "America/New_York",
    "America/Nuuk",
    "America/Santiago",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Jerusalem",
    "Asia/Kathmandu",
    "Asia/Shanghai",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Europe/Dublin",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Easter",
    "Pacific/Kiritimati",
    "Pacific/Norfolk",
    "UTC",
]
DURATIONS = [
    Duration(days=1),
    Duration(days=7, exact_ms=1),
    Duration(days=30),
    Duration(days=365),
    Duration(exact_ms=DAY),
]
AROUND_MS = [-2 * HOUR, -HOUR - 1, -HOUR, -1, 0, 1, HOUR // 2, HOUR - 1, HOUR, 3 * HOUR]

offsets_of = cache(lambda zone: zone_offsets(zone, LAUNCH))


def after(instant_ms: int, duration: Duration, zone: str) -> int:
    """The same by Python: days on the wall clock, fold=0 as PEP 495 has it, milliseconds in time."""
    if duration.days == 0:
        return instant_ms + duration.exact_ms
    wall = (EPOCH + timedelta(milliseconds=instant_ms)).astimezone(ZoneInfo(zone)).replace(fold=0)
    return (wall + timedelta(days=duration.days) - EPOCH) // timedelta(milliseconds=1) + duration.exact_ms


def agree(client: Redis, zone: str, wait: Duration, duration: Duration, instants: list[int]) -> None:
    """The store's windows of coupons issued at these instants are Python's."""
    campaign = a_campaign(validity=RelativeValidity(zone, wait, duration, offsets_of(zone)))
    windows = client.eval(WINDOWS, 0, pack_configuration(campaign, 0), msgpack.packb(instants))
    for instant, starts_at_ms, expires_at_ms in zip(instants, windows[::2], windows[1::2], strict=True):
        starts = after(instant, wait, zone)
        assert (starts_at_ms, expires_at_ms) == (starts, after(starts, duration, zone)), (zone, instant)


@pytest.fixture
def client(store_url: str) -> Iterator[Redis]:
    with Redis.from_url(store_url) as client:
        yield client


@pytest.mark.parametrize("zone", ODD_ZONES)
def test_days_around_every_change_of_offset_are_the_wall_clocks_days(client: Redis, zone: str) -> None:
    last = LAUNCH + HORIZON_DAYS * DAY
    changes = [change for change, _ in offsets_of(zone)[1:]] or [LAUNCH + 2 * DAY]
    for duration in DURATIONS:
        instants = [change - duration.days * DAY + around for change in changes for around in AROUND_MS]
        instants = [instant for instant in instants if LAUNCH <= instant < last - duration.days * DAY]
        agree(client, zone, Duration(), duration, instants)
        agree(client, zone, Duration(days=1, exact_ms=HOUR), duration, instants)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    zone=st.sampled_from(sorted(available_timezones() - {"localtime"})),
    wait=st.builds(Duration, st.integers(0, 30), st.integers(0, 2 * DAY)),
    duration=st.builds(Duration, st.integers(0, 400), st.integers(0, 2 * DAY)),
    instants=st.lists(st.integers(LAUNCH, LAUNCH + (HORIZON_DAYS - 440) * DAY), min_size=1, max_size=50),
)
def test_any_rule_in_any_zone_at_any_time_is_the_wall_clocks(
    client: Redis, zone: str, wait: Duration, duration: Duration, instants: list[int]
) -> None:
    agree(client, zone, wait, duration, instants)


@pytest.mark.parametrize(
    ("zone", "issued", "duration", "expires"),
    [
        ("Asia/Shanghai", "2027-12-31T23:59:59.999+08:00", Duration(days=1), "2028-01-01T23:59:59.999+08:00"),
        ("Asia/Shanghai", "2028-02-28T12:00+08:00", Duration(days=1), "2028-02-29T12:00+08:00"),
        ("Asia/Shanghai", "2028-02-28T12:00+08:00", Duration(days=2), "2028-03-01T12:00+08:00"),
        ("Europe/Berlin", "2026-03-28T02:30+01:00", Duration(days=1), "2026-03-29T03:30+02:00"),
        ("Europe/Berlin", "2026-03-28T12:00+01:00", Duration(days=1), "2026-03-29T12:00+02:00"),
        ("Europe/Berlin", "2026-03-28T12:00+01:00", Duration(exact_ms=DAY), "2026-03-29T13:00+02:00"),
        ("Europe/Berlin", "2026-10-24T02:30+02:00", Duration(days=1), "2026-10-25T02:30+02:00"),
        ("Europe/Berlin", "2026-10-25T02:30+01:00", Duration(days=1), "2026-10-26T02:30+01:00"),
        ("America/Havana", "2026-03-07T00:30-05:00", Duration(days=1), "2026-03-08T01:30-04:00"),
        ("Australia/Lord_Howe", "2026-10-03T02:15+10:30", Duration(days=1), "2026-10-04T02:45+11:00"),
    ],
)
def test_days_that_people_stumble_over(client: Redis, zone: str, issued: str, duration: Duration, expires: str) -> None:
    assert after(at(issued), duration, zone) == at(expires)
    agree(client, zone, Duration(), duration, [at(issued)])
