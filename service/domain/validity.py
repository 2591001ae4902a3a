"""When a coupon may be redeemed: the rule a campaign states, in a form that the store can apply by its own clock.

The store knows no time zones, so a rule that counts calendar days carries the zone's offsets with it;
`store/lua/fragments/validity.lua` applies it.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo, available_timezones

from service.domain.opening import Opening

DAY_MS: Final = 86_400_000
MAX_DURATION_DAYS: Final = 3_660
OFFSETS_HORIZON_DAYS: Final = 3_660
"""How far ahead a campaign knows its zone's offset changes; after that the last offset holds."""
MAX_EXTENSIONS: Final = 64
"""How many times one campaign's validity can be extended; every touch of a coupon folds over them."""
MAX_WAVES: Final = 64

Offsets = tuple[tuple[int, int], ...]
"""A zone's UTC offsets as (in force from, offset), both in milliseconds; the first holds for all time before it too."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(r"P(?:(\d{1,5})W|(?=.)(?:(\d{1,5})D)?(?:T(?=.)(?:(\d{1,7})H)?(?:(\d{1,8})M)?(?:(\d{1,9})S)?)?)")


@dataclass(frozen=True, slots=True)
class Duration:
    """A span of calendar days, which stretch and shrink with daylight saving, and of exact milliseconds."""

    days: int = 0
    exact_ms: int = 0

    @staticmethod
    def parse(text: str) -> "Duration":
        """Read ISO 8601 weeks, days, hours, minutes and seconds (`P7D`, `PT90M`).

        Months and years are refused, since their length depends on where they start. Raises ValueError.
        """
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError("not an ISO 8601 duration of weeks, days, hours, minutes or seconds, such as P7D or PT15M")
        weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        duration = Duration(weeks * 7 + days, (hours * 3600 + minutes * 60 + seconds) * 1000)
        if duration.days * DAY_MS + duration.exact_ms > MAX_DURATION_DAYS * DAY_MS:
            raise ValueError(f"longer than {MAX_DURATION_DAYS} days")
        return duration

    def __str__(self) -> str:
        """The ISO 8601 form that `parse` reads back."""
        hours, rest = divmod(self.exact_ms // 1000, 3600)
        minutes, seconds = divmod(rest, 60)
        date = f"{self.days}D" if self.days else ""
        time = "".join(f"{n}{unit}" for n, unit in ((hours, "H"), (minutes, "M"), (seconds, "S")) if n)
        return f"P{date}T{time}" if time else f"P{date or '0D'}"

    def times(self, factor: int) -> "Duration":
        """So many of them, one after the other."""
        return Duration(self.days * factor, self.exact_ms * factor)


@dataclass(frozen=True, slots=True)
class FixedWaves:
    """The coupons start in waves, `every` after one another, at instants that are worked out once."""

    every: Duration
    starts_at_ms: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RelativeWaves:
    """The coupons issued at one instant start in `count` waves, `every` after one another, and expire together."""

    count: int
    every: Duration


@dataclass(frozen=True, slots=True)
class FixedValidity:
    """Every coupon is valid until the same instant. The offsets are known where an opening needs them."""

    timezone: str
    starts_at_ms: int | None
    expires_at_ms: int
    kind: Literal["fixed"] = "fixed"
    offsets: Offsets = ()
    opening: Opening | None = None
    waves: FixedWaves | None = None


@dataclass(frozen=True, slots=True)
class RelativeValidity:
    """Each coupon becomes valid `wait` after its issue and stays so for `duration`, by the clock on the zone's wall.

    With waves it starts later by its wave's share, and the duration counts from the last wave's start.
    """

    timezone: str
    wait: Duration
    duration: Duration
    offsets: Offsets
    kind: Literal["relative"] = "relative"
    opening: Opening | None = None
    waves: RelativeWaves | None = None


Validity = FixedValidity | RelativeValidity


def zone_exists(name: str) -> bool:
    """Whether `name` is an IANA time zone."""
    return name in available_timezones()


def zone_offsets(name: str, from_ms: int) -> Offsets:
    """The zone's UTC offsets for the horizon after `from_ms`."""
    zone = ZoneInfo(name)

    def offset_at(second: int) -> int:
        offset = datetime.fromtimestamp(second, UTC).astimezone(zone).utcoffset()
        return int((offset or timedelta()).total_seconds())

    day = from_ms // 1000 - 2 * 86_400
    current = offset_at(day)
    found = [(0, current * 1000)]
    for _ in range(OFFSETS_HORIZON_DAYS):
        if offset_at(day + 86_400) != current:
            low, high = day, day + 86_400
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset_at(middle) == current else (low, middle)
            current = offset_at(high)
            found.append((high * 1000, current * 1000))
        day += 86_400
    return tuple(found)


def _later(instant_ms: int, duration: Duration, timezone: str) -> int:
    """The instant after that duration: days move the clock on the zone's wall, milliseconds move time."""
    if duration.days == 0:
        return instant_ms + duration.exact_ms
    wall = (_EPOCH + timedelta(milliseconds=instant_ms)).astimezone(ZoneInfo(timezone)).replace(fold=0)
    return (wall + timedelta(days=duration.days) - _EPOCH) // timedelta(milliseconds=1) + duration.exact_ms


def wave_starts(first_ms: int, count: int, every: Duration, timezone: str) -> tuple[int, ...]:
    """When each of so many waves begins."""
    return tuple(_later(first_ms, every.times(wave), timezone) for wave in range(count))


def usable_at(validity: Validity, from_ms: int, until_ms: int) -> int | None:
    """The first instant from one on and before another at which the opening lets coupons be redeemed, or None."""
    if validity.opening is None:
        return from_ms if from_ms < until_ms else None
    ends = [*(changes_at_ms for changes_at_ms, _ in validity.offsets[1:]), until_ms]
    for (begins_ms, offset_ms), ends_ms in zip(validity.offsets, ends, strict=True):
        begin_ms, end_ms = max(begins_ms, from_ms), min(ends_ms, until_ms)
        if begin_ms < end_ms:
            wall_ms = validity.opening.next_open(begin_ms + offset_ms, end_ms + offset_ms)
            if wall_ms is not None:
                return wall_ms - offset_ms
    return None
