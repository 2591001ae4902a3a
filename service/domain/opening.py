"""At which hours of the week and on which dates coupons may be redeemed, by the clock on the zone's wall.

The wall's reading alone decides, so an hour that daylight saving repeats is open twice, and one that it skips never.
Hours that pass midnight belong to the date on which they begin, whether that is excluded, extra or neither.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Final, Literal, get_args

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEK: Final[tuple[Weekday, ...]] = get_args(Weekday)

MINUTE_MS: Final = 60_000
DAY_MINUTES: Final = 1_440
MAX_HOURS: Final = 28
"""How many entries the hours of one campaign can have: four for each day of the week."""
MAX_DATES: Final = 366
"""How many dates one campaign can exclude, and how many it can add."""
MAX_CLOSED_DAYS: Final = 7 * (MAX_DATES + 2)
"""By then a day of the week has come that is open and that no excluded date can still take away."""

_DAY_MS: Final = DAY_MINUTES * MINUTE_MS
_EPOCH: Final = date(1970, 1, 1)

Span = tuple[int, int]
"""Open from one minute until before another, counted from the midnight on which the date begins; the end may be past
the next midnight."""
ALL_DAY: Final[Span] = (0, DAY_MINUTES)


@dataclass(frozen=True, slots=True)
class Hours:
    """Open on these days from one minute of the day until before another, which is the next day's if it is earlier."""

    days: tuple[Weekday, ...]
    from_minute: int
    to_minute: int

    @property
    def span(self) -> Span:
        """The hours of one date."""
        passes_midnight = self.to_minute < self.from_minute
        return self.from_minute, self.to_minute + (DAY_MINUTES if passes_midnight else 0)


@dataclass(frozen=True, slots=True)
class Opening:
    """Open at these hours, or at all where there are none; never on excluded dates.

    On an extra date every entry of the hours holds, whatever its days.
    """

    hours: tuple[Hours, ...] = ()
    excluded_dates: frozenset[date] = frozenset()
    extra_dates: frozenset[date] = frozenset()

    def spans_on(self, weekday: Weekday | None) -> list[Span]:
        """What is open on such a day of the week, or on an extra date (None); in order."""
        if not self.hours:
            return [ALL_DAY]
        return sorted({entry.span for entry in self.hours if weekday is None or weekday in entry.days})

    def next_open(self, wall_ms: int, before_ms: int) -> int | None:
        """The first reading of the wall's clock, from one on and before another, at which it is open."""
        week, extra = [self.spans_on(weekday) for weekday in WEEK], self.spans_on(None)
        first = wall_ms // _DAY_MS - 1
        for day in range(first, min(before_ms // _DAY_MS, first + MAX_CLOSED_DAYS) + 1):
            on = date.fromordinal(_EPOCH.toordinal() + day)
            if on in self.excluded_dates:
                continue
            for begin, end in extra if on in self.extra_dates else week[on.weekday()]:
                if day * _DAY_MS + end * MINUTE_MS > wall_ms:
                    opens_ms = max(wall_ms, day * _DAY_MS + begin * MINUTE_MS)
                    return opens_ms if opens_ms < before_ms else None
        return None


def clock_text(minute: int) -> str:
    """A minute of the day as people write it; the last is followed by 24:00."""
    return f"{minute // 60:02}:{minute % 60:02}"


def epoch_day(on: date) -> int:
    """The date as a number of days since 1970."""
    return (on - _EPOCH).days


def first_overlap(hours: Iterable[Hours]) -> tuple[Weekday, int] | None:
    """The day and the minute at which two of the hours are open at once, if there are any."""
    week_minutes = len(WEEK) * DAY_MINUTES
    starts = [(WEEK.index(day) * DAY_MINUTES, entry.span) for entry in hours for day in entry.days]
    spans = sorted((midnight + begin, midnight + end) for midnight, (begin, end) in starts)
    spans += [(begin + week_minutes, end + week_minutes) for begin, end in spans[:1]]
    for (_, end), (next_begin, _) in pairwise(spans):
        if next_begin < end:
            day, minute = divmod(next_begin % week_minutes, DAY_MINUTES)
            return WEEK[day], minute
    return None
