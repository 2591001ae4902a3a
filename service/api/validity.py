"""Validity on the wire: when a campaign's coupons may be redeemed, and its way to the domain's rule and back."""

from dataclasses import replace
from datetime import datetime
from operator import not_
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.config import JsonDict

from service.api.spelling import moment_text
from service.api.vocabulary import DateText, DurationText, Moment, Wire, ZoneName, milliseconds
from service.domain import validity as domain
from service.domain.opening import MAX_DATES, MAX_HOURS, WEEK, Opening, Weekday, first_overlap
from service.domain.opening import Hours as OpeningHours
from service.domain.validity import (
    DAY_MS,
    MAX_DURATION_DAYS,
    MAX_WAVES,
    Duration,
    FixedValidity,
    FixedWaves,
    RelativeValidity,
    RelativeWaves,
    wave_starts,
    zone_offsets,
)

Item = TypeVar("Item")

EXAMPLE: Final[JsonDict] = {
    "timezone": "Asia/Shanghai",
    "starts_at": "2026-02-06T00:00:00+08:00",
    "expires_at": "2026-02-28T23:59:59.999+08:00",
    "hours": [
        {"days": ["mon", "tue", "wed", "thu"], "from": "10:00", "to": "22:00"},
        {"days": ["fri", "sat"], "from": "10:00", "to": "02:00"},
    ],
    "excluded_dates": ["2026-02-17"],
    "extra_dates": ["2026-02-22"],
    "waves": {"count": 4, "every": "P1D"},
}


def _each_once(items: list[Item]) -> list[Item]:
    if len(set(items)) < len(items):
        raise ValueError("names one of them twice")
    return items


Dates = Annotated[list[DateText], Field(max_length=MAX_DATES), AfterValidator(_each_once)]


class Hours(Wire):
    """Open on these days from one time of day until before another; where that is earlier, past midnight."""

    days: Annotated[list[Weekday], Field(min_length=1, max_length=len(WEEK)), AfterValidator(_each_once)]
    from_: Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] = Field(
        alias="from", examples=["10:00"]
    )
    to: Annotated[str, StringConstraints(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")] = Field(
        examples=["22:00"], description="24:00 is the end of the day."
    )

    @field_validator("to")
    @classmethod
    def _is_not_where_it_began(cls, to: str, info: ValidationInfo) -> str:
        if to == info.data.get("from_"):
            raise ValueError("must differ from `from`; a whole day is 00:00 to 24:00")
        return to


class Waves(Wire):
    """Coupons start in `count` waves, `every` after one another, as many in one as in the next."""

    count: Annotated[int, Field(ge=2, le=MAX_WAVES)]
    every: DurationText = Field(examples=["P1D"])

    @field_validator("every")
    @classmethod
    def _is_some_time(cls, every: str) -> str:
        if Duration.parse(every) == Duration():
            raise ValueError("must be longer than nothing")
        return every


class Validity(Wire):
    """When coupons may be redeemed: until `expires_at`, or for `duration` from issue after a `wait`.

    Within that time `hours`, by the clock of the time zone, may restrict it further. They belong to the date on which
    they begin: it is closed on `excluded_dates`; on `extra_dates` all of the hours hold, whatever their days. What a
    campaign does not have of these, and of waves, is not shown.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    timezone: ZoneName
    starts_at: Moment | None = None
    expires_at: Moment | None = None
    wait: DurationText | None = None
    duration: DurationText | None = None
    hours: Annotated[list[Hours], Field(min_length=1, max_length=MAX_HOURS)] | None = Field(
        None, exclude_if=not_, description="Without them every hour is open."
    )
    excluded_dates: Dates = Field(default_factory=list, exclude_if=not_)
    extra_dates: Dates = Field(default_factory=list, exclude_if=not_)
    waves: Waves | None = Field(
        None,
        exclude_if=not_,
        description="The first starts at `starts_at`, or after the `wait`; `duration` counts from the last.",
    )

    @field_validator("hours")
    @classmethod
    def _do_not_overlap(cls, hours: list[Hours] | None) -> list[Hours] | None:
        overlap = first_overlap(_hours(hours or []))
        if overlap is not None:
            day, minute = overlap
            raise ValueError(f"overlap on {day} at {_clock(minute)}")
        return hours

    @field_validator("extra_dates")
    @classmethod
    def _has_hours_to_open(cls, extra_dates: list[DateText], info: ValidationInfo) -> list[DateText]:
        if extra_dates and info.data.get("hours", True) is None:
            raise ValueError("goes with hours; without them every date is open")
        both = set(extra_dates).intersection(info.data.get("excluded_dates", ()))
        if both:
            raise ValueError(f"names {min(both)}, which is in excluded_dates too")
        return extra_dates

    @field_validator("waves")
    @classmethod
    def _all_begin_in_time(cls, waves: Waves | None, info: ValidationInfo) -> Waves | None:
        if waves is None:
            return None
        spread_ms = _nominal_ms(Duration.parse(waves.every).times(waves.count))
        starts_at, expires_at = info.data.get("starts_at"), info.data.get("expires_at")
        if spread_ms > MAX_DURATION_DAYS * DAY_MS:
            raise ValueError(f"spread over more than {MAX_DURATION_DAYS} days")
        if expires_at is not None:
            if starts_at is None:
                raise ValueError("with expires_at needs starts_at, when the first one begins")
            if milliseconds(starts_at) + spread_ms > milliseconds(expires_at):
                raise ValueError("must leave the last one as long as `every` before expires_at")
        return waves

    @model_validator(mode="after")
    def _is_one_rule(self) -> Self:
        if (self.expires_at is None) == (self.duration is None):
            raise ValueError("give either expires_at or duration")
        if self.starts_at is not None and self.expires_at is None:
            raise ValueError("starts_at goes with expires_at; with duration, say wait")
        if self.wait is not None and self.duration is None:
            raise ValueError("wait goes with duration; with expires_at, say starts_at")
        if self.starts_at is not None and self.expires_at is not None and self.expires_at <= self.starts_at:
            raise ValueError("expires_at must be later than starts_at")
        if self.duration is not None and Duration.parse(self.duration) == Duration():
            raise ValueError("duration must be longer than nothing")
        return self


def read_validity(given: Validity, now_ms: int) -> domain.Validity:
    """The domain's rule for a campaign that is written now."""
    opening, waves = _opening(given), given.waves
    offsets = zone_offsets(given.timezone, now_ms)
    if given.expires_at is not None:
        starts_at_ms = None if given.starts_at is None else milliseconds(given.starts_at)
        fixed = FixedValidity(given.timezone, starts_at_ms, milliseconds(given.expires_at), opening=opening)
        if opening is not None:
            fixed = replace(fixed, offsets=offsets)
        if waves is not None and starts_at_ms is not None:
            starts = wave_starts(starts_at_ms, waves.count, Duration.parse(waves.every), given.timezone)
            fixed = replace(fixed, waves=FixedWaves(Duration.parse(waves.every), starts))
        return fixed
    assert given.duration is not None
    return RelativeValidity(
        given.timezone,
        Duration.parse(given.wait or "P0D"),
        Duration.parse(given.duration),
        offsets,
        opening=opening,
        waves=None if waves is None else RelativeWaves(waves.count, Duration.parse(waves.every)),
    )


def validity_body(rule: domain.Validity) -> dict[str, Any]:
    """The rule as it was given."""
    opening = rule.opening or Opening()
    return _window_body(rule) | {
        "timezone": rule.timezone,
        "hours": [_hours_body(entry) for entry in opening.hours] or None,
        "excluded_dates": sorted(opening.excluded_dates),
        "extra_dates": sorted(opening.extra_dates),
    }


def _window_body(rule: domain.Validity) -> dict[str, Any]:
    match rule:
        case FixedValidity(timezone, starts_at_ms, expires_at_ms, waves=waves):
            return {
                "starts_at": None if starts_at_ms is None else _moment(starts_at_ms, timezone),
                "expires_at": _moment(expires_at_ms, timezone),
                "waves": waves and {"count": len(waves.starts_at_ms), "every": str(waves.every)},
            }
        case RelativeValidity(_, wait, duration, waves=waves):
            return {
                "wait": str(wait),
                "duration": str(duration),
                "waves": waves and {"count": waves.count, "every": str(waves.every)},
            }


def _opening(given: Validity) -> Opening | None:
    opening = Opening(_hours(given.hours or []), frozenset(given.excluded_dates), frozenset(given.extra_dates))
    return None if opening == Opening() else opening


def _hours(given: list[Hours]) -> tuple[OpeningHours, ...]:
    return tuple(OpeningHours(tuple(entry.days), _minute(entry.from_), _minute(entry.to)) for entry in given)


def _hours_body(entry: OpeningHours) -> dict[str, Any]:
    return {"days": list(entry.days), "from": _clock(entry.from_minute), "to": _clock(entry.to_minute)}


def _minute(clock: str) -> int:
    hour, minute = clock.split(":")
    return int(hour) * 60 + int(minute)


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _moment(instant_ms: int, zone: str) -> datetime:
    return datetime.fromisoformat(moment_text(instant_ms, zone))


def _nominal_ms(duration: Duration) -> int:
    return duration.days * DAY_MS + duration.exact_ms
