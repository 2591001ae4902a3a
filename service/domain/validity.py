"""When a coupon may be redeemed: the rule a campaign states, in a form that the store can apply by its own clock.

The store knows no time zones, so a rule that counts calendar days carries the zone's offsets with it;
`store/lua/fragments/validity.lua` applies it.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo, available_timezones

DAY_MS: Final = 86_400_000
MAX_DURATION_DAYS: Final = 3_660
OFFSETS_HORIZON_DAYS: Final = 3_660
"""How far ahead a campaign knows its zone's offset changes; after that the last offset holds."""
MAX_EXTENSIONS: Final = 64
"""How many times one campaign's validity can be extended; every touch of a coupon folds over them."""

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


@dataclass(frozen=True, slots=True)
class FixedValidity:
    """Every coupon is valid until the same instant."""

    timezone: str
    starts_at_ms: int | None
    expires_at_ms: int
    kind: Literal["fixed"] = "fixed"


@dataclass(frozen=True, slots=True)
class RelativeValidity:
    """Each coupon becomes valid `wait` after its issue and stays so for `duration`, by the clock on the zone's wall."""

    timezone: str
    wait: Duration
    duration: Duration
    offsets: tuple[tuple[int, int], ...]
    kind: Literal["relative"] = "relative"


Validity = FixedValidity | RelativeValidity


def zone_exists(name: str) -> bool:
    """Whether `name` is an IANA time zone."""
    return name in available_timezones()


def zone_offsets(name: str, from_ms: int) -> tuple[tuple[int, int], ...]:
    """The zone's UTC offsets as (in force from, offset), both in milliseconds, for the horizon after `from_ms`.

    The first entry holds for all time before it too.
    """
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
