"""Why: an opening said a second time, as plainly as Python's own zones allow, so that the service can be compared."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from service.domain.opening import DAY_MINUTES, WEEK, Hours, Opening
from service.domain.validity import zone_offsets

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = 60_000
SEASONS = [
    ("Africa/Casablanca", "2026-02-14"),
    ("America/New_York", "2026-10-30"),
    ("America/St_Johns", "2026-03-05"),
    ("Antarctica/Troll", "2026-03-27"),
    ("Asia/Kathmandu", "1985-12-29"),
    ("Asia/Shanghai", "2028-02-26"),
    ("Australia/Lord_Howe", "2026-04-02"),
    ("Australia/Lord_Howe", "2026-10-01"),
    ("Europe/Berlin", "2026-03-27"),
    ("Europe/Berlin", "2026-10-23"),
    ("Pacific/Apia", "2011-12-27"),
    ("Pacific/Chatham", "2026-09-25"),
    ("Pacific/Kiritimati", "2026-12-29"),
    ("UTC", "2027-12-30"),
]
"""Zones, and weeks in which something happens: changes of offset, a day that is skipped, a leap day, a year's end."""


def milliseconds(moment: datetime) -> int:
    """An instant in milliseconds."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def is_open(opening: Opening, zone: str, instant_ms: int) -> bool:
    """Whether one of the hours that begin on this date or on the one before holds at that instant."""
    wall = (EPOCH + timedelta(milliseconds=instant_ms)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    yesterday = wall - timedelta(days=1)
    return any(begins <= wall < ends for on in (wall, yesterday) for begins, ends in _hours_of(opening, on.date()))


def _hours_of(opening: Opening, on: date) -> Iterator[tuple[datetime, datetime]]:
    midnight = datetime.combine(on, time())
    if on in opening.excluded_dates:
        return
    for entry in opening.hours or [Hours(WEEK, 0, DAY_MINUTES)]:
        if on in opening.extra_dates or WEEK[on.weekday()] in entry.days:
            begins, ends = (midnight + timedelta(minutes=minute) for minute in (entry.from_minute, entry.to_minute))
            yield begins, ends if begins < ends else ends + timedelta(days=1)


@cache
def season_offsets(season: tuple[str, str]) -> tuple[tuple[int, int], ...]:
    """The zone's offsets as a campaign that was written at the season's beginning knows them."""
    return zone_offsets(season[0], beginning(season))


def beginning(season: tuple[str, str]) -> int:
    """The instant at which the season begins, about."""
    return milliseconds(datetime.fromisoformat(season[1]).replace(tzinfo=UTC))


clocks = st.one_of(st.sampled_from([0, 60, 120, 150, 180, 1380, 1439]), st.integers(0, DAY_MINUTES - 1))
entries = st.builds(
    Hours,
    st.lists(st.sampled_from(WEEK), min_size=1, max_size=7, unique=True).map(tuple),
    clocks,
    st.one_of(clocks, st.just(DAY_MINUTES)),
).filter(lambda entry: entry.from_minute != entry.to_minute)


@st.composite
def openings(draw: st.DrawFn, season: tuple[str, str]) -> Opening:
    """Hours and dates around the season's week."""
    first = date.fromisoformat(season[1])
    dates = st.frozensets(st.integers(-1, 8).map(lambda days: first + timedelta(days=days)), max_size=4)
    return Opening(tuple(draw(st.lists(entries, max_size=4))), draw(dates), draw(dates))


@st.composite
def instants(draw: st.DrawFn, season: tuple[str, str]) -> int:
    """An instant of the season's week: whole minutes of the wall, a millisecond before, or any."""
    minute = draw(st.one_of(st.integers(0, 7 * 48).map(lambda half_hours: half_hours * 30), st.integers(0, 7 * 1440)))
    return beginning(season) + minute * MINUTE + draw(st.sampled_from([-1, 0, 1, 59_999]))
