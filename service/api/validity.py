"""Validity on the wire: when coupons may be redeemed, in words that are refused where they contradict each other."""

from operator import not_
from typing import Annotated, Final, Self, TypeVar

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

from service.api.vocabulary import DateText, DurationText, Moment, Wire, ZoneName, milliseconds
from service.domain import opening
from service.domain.opening import MAX_DATES, MAX_HOURS, WEEK, Weekday, clock_text, first_overlap
from service.domain.validity import DAY_MS, MAX_DURATION_DAYS, MAX_WAVES, Duration

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

    def rule(self) -> opening.Hours:
        """The same for the domain."""
        return opening.Hours(tuple(self.days), _minute(self.from_), _minute(self.to))


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

    @property
    def nominal_ms(self) -> int:
        """How long all of them take, where a day has 24 hours."""
        spread = Duration.parse(self.every).times(self.count)
        return spread.days * DAY_MS + spread.exact_ms


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
    stop_the_clock: bool = Field(False, description="Add time in which redemption was down.")

    @field_validator("hours")
    @classmethod
    def _do_not_overlap(cls, hours: list[Hours] | None) -> list[Hours] | None:
        overlap = first_overlap([entry.rule() for entry in hours or []])
        if overlap is not None:
            day, minute = overlap
            raise ValueError(f"overlap on {day} at {clock_text(minute)}")
        return hours

    @field_validator("extra_dates")
    @classmethod
    def _has_hours_to_open(cls, extra_dates: list[DateText], info: ValidationInfo) -> list[DateText]:
        # Hours that are wrong themselves are not there at all.
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
        starts_at, expires_at = info.data.get("starts_at"), info.data.get("expires_at")
        if waves.nominal_ms > MAX_DURATION_DAYS * DAY_MS:
            raise ValueError(f"spread over more than {MAX_DURATION_DAYS} days")
        if expires_at is not None:
            if starts_at is None:
                raise ValueError("with expires_at needs starts_at, when the first one begins")
            if milliseconds(starts_at) + waves.nominal_ms > milliseconds(expires_at):
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


def _minute(clock: str) -> int:
    hour, minute = clock.split(":")
    return int(hour) * 60 + int(minute)
