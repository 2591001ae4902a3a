"""The vocabulary of the wire: the values that requests and answers are made of, each with its bounds."""

import re
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Annotated, Final, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from service.domain.money import MAX_AMOUNT
from service.domain.validity import DAY_MS, Duration, zone_exists

MAX_BODY_BYTES: Final = 16 * 1024
MAX_HEAD_BYTES: Final = 64 * 1024
"""A request's line and headers, and likewise the trailers behind its body."""
MAX_BURST: Final = 10**8
MAX_PER_SECOND: Final = 10**6
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""An instant between these can be written in every zone."""

_RFC_3339: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})")
_ISO_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _duration(text: str) -> str:
    Duration.parse(text)
    return text


@lru_cache(maxsize=1024)
def _zone(name: str) -> str:
    # Looking one up walks a folder, and every campaign that is shown has one.
    if not zone_exists(name):
        raise ValueError("not an IANA time zone, such as Asia/Shanghai")
    return name


def _rfc_3339(value: object) -> object:
    if isinstance(value, datetime) or (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        return value
    raise ValueError("must be RFC 3339 text with an offset, such as 2026-02-28T23:59:59+08:00")


def _in_our_time(moment: datetime) -> datetime:
    if not EARLIEST <= moment < LATEST:
        raise ValueError("must be between the years 1970 and 9998")
    return moment


def _iso_date(value: object) -> object:
    if isinstance(value, date) or (isinstance(value, str) and _ISO_DATE.fullmatch(value)):
        return value
    raise ValueError("must be a date such as 2026-02-17")


def _in_our_days(on: date) -> date:
    if not EARLIEST.date() <= on < LATEST.date():
        raise ValueError("must be between the years 1970 and 9998")
    return on


def _to_the_millisecond(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


Moment = Annotated[
    AwareDatetime,
    Strict(False),
    BeforeValidator(_rfc_3339),
    AfterValidator(_in_our_time),
    PlainSerializer(_to_the_millisecond, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
CampaignId = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$"), Field(examples=["spring-festival"])
]
OpaqueId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~:@+-]{0,63}$")]
"""An id that the caller chose: letters, digits and . _ ~ : @ + -, at most 64."""
Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
LanguageTag = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$"), Field(examples=["zh-Hans"])
]
"""A BCP 47 tag of a language, perhaps with script and region."""
Message = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f]+$")]
Messages = Annotated[
    dict[LanguageTag, Message],
    Field(max_length=20, description="What the public reads while the campaign is paused, by language."),
]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), Field(examples=["CNY"])]
Amount = Annotated[int, Field(ge=1, le=MAX_AMOUNT)]
DurationText = Annotated[str, StringConstraints(max_length=40), AfterValidator(_duration), Field(examples=["P7D"])]
DateText = Annotated[
    date, Strict(False), BeforeValidator(_iso_date), AfterValidator(_in_our_days), Field(examples=["2026-02-17"])
]
ZoneName = Annotated[str, StringConstraints(max_length=64), AfterValidator(_zone), Field(examples=["Asia/Shanghai"])]


EXACT: Final = ConfigDict(extra="forbid", strict=True)
"""What all that is sent to us has in common: exact types, and no field that nobody reads."""


class Wire(BaseModel):
    """What all wire models share."""

    model_config = ConfigDict(**EXACT, frozen=True)


class Money(Wire):
    """An amount in minor units of a currency."""

    amount: Amount
    currency: Currency


class IssueWindow(Wire):
    """When coupons are issued: from `starts_at` on, until `ends_at`."""

    starts_at: Moment
    ends_at: Moment

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if self.ends_at <= self.starts_at:
            raise ValueError("ends_at must be later than starts_at")
        return self


def _thousandths(value: float) -> float:
    if round(value * 1000) < 1 or abs(value * 1000 - round(value * 1000)) > 1e-6:
        raise ValueError("must be a multiple of 0.001")
    return value


PerSecond = Annotated[
    float, Field(gt=0, le=MAX_PER_SECOND, description="Down to a thousandth."), AfterValidator(_thousandths)
]


class Rate(Wire):
    """A token bucket: `per_second` tokens flow in, `burst` fit."""

    per_second: PerSecond
    burst: Annotated[int, Field(ge=1, le=MAX_BURST)]


class IssueCoupling(Wire):
    """Issue no more coupons than all merchants, at `redemptions_per_second`, can redeem before these expire."""

    redemptions_per_second: PerSecond


def milliseconds(moment: datetime) -> int:
    """The instant in milliseconds since the epoch; what is finer is cut off."""
    delta = moment - EARLIEST
    return delta.days * DAY_MS + delta.seconds * 1000 + delta.microseconds // 1000
