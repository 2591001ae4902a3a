"""The wire models: what callers send and receive, with every bound on it, in the words of the API."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Final, Literal, Self

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
    field_validator,
    model_validator,
)

from service.domain.breaker import Mode
from service.domain.campaign import MAX_COUPONS, MAX_COUPONS_PER_USER, CampaignStatus
from service.domain.coupon import MAX_HOLD_MS, CouponStatus, RedemptionStatus
from service.domain.money import MAX_AMOUNT
from service.domain.validity import DAY_MS, Duration, zone_exists

MAX_BODY_BYTES: Final = 16 * 1024
MAX_BURST: Final = 10**8
MAX_PER_SECOND: Final = 10**6
MAX_OVERRIDE_S: Final = 7 * 86_400
EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
"""An instant between these can be written in every zone."""

_RFC_3339: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})")


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
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$"), Field(examples=["CNY"])]
Amount = Annotated[int, Field(ge=1, le=MAX_AMOUNT)]
DurationText = Annotated[str, StringConstraints(max_length=40), AfterValidator(_duration), Field(examples=["P7D"])]
ZoneName = Annotated[str, StringConstraints(max_length=64), AfterValidator(_zone), Field(examples=["Asia/Shanghai"])]


class Wire(BaseModel):
    """What all wire models share: exact types, and no field that nobody reads."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Money(Wire):
    """An amount in minor units of a currency."""

    amount: Amount
    currency: Currency


class Benefit(Wire):
    """What a coupon is worth: an amount off, for orders from `min_order_amount` on."""

    kind: Literal["amount"]
    amount: Amount
    currency: Currency
    min_order_amount: Annotated[int, Field(ge=0, le=MAX_AMOUNT)] = 0


class IssueWindow(Wire):
    """When coupons are issued: from `starts_at` on, until `ends_at`."""

    starts_at: Moment
    ends_at: Moment

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if self.ends_at <= self.starts_at:
            raise ValueError("ends_at must be later than starts_at")
        return self


class Validity(Wire):
    """When coupons may be redeemed: until `expires_at`, or for `duration` from issue after a `wait`."""

    timezone: ZoneName
    starts_at: Moment | None = None
    expires_at: Moment | None = None
    wait: DurationText | None = None
    duration: DurationText | None = None

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


class Rate(Wire):
    """A token bucket: `per_second` tokens flow in, `burst` fit."""

    per_second: Annotated[float, Field(gt=0, le=MAX_PER_SECOND, description="Down to a thousandth.")]
    burst: Annotated[int, Field(ge=1, le=MAX_BURST)]

    @field_validator("per_second")
    @classmethod
    def _is_a_number_of_thousandths(cls, value: float) -> float:
        if round(value * 1000) < 1 or abs(value * 1000 - round(value * 1000)) > 1e-6:
            raise ValueError("must be a multiple of 0.001")
        return value


def _same_currency(benefit: Benefit, budget: Money | None) -> None:
    if budget is not None and budget.currency != benefit.currency:
        raise ValueError(f"budget.currency is {budget.currency}, but the benefit is in {benefit.currency}")


class CampaignRequest(Wire):
    """A new campaign. It is a draft until it is started."""

    id: CampaignId
    name: Text
    benefit: Benefit
    max_coupons: Annotated[int, Field(ge=1, le=MAX_COUPONS)]
    max_coupons_per_user: Annotated[int, Field(ge=1, le=MAX_COUPONS_PER_USER)] = 1
    budget: Money | None = None
    issue_window: IssueWindow | None = None
    validity: Validity
    issue_rate: Rate
    user_rate: Rate | None = None
    merchant_rate: Rate | None = None
    code_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{2,8}$")] | None = Field(
        None, description="Begins every code; by default taken from the id."
    )

    @model_validator(mode="after")
    def _money_is_in_one_currency(self) -> Self:
        _same_currency(self.benefit, self.budget)
        return self

    @model_validator(mode="after")
    def _coupons_outlive_their_issue(self) -> Self:
        window, expires_at = self.issue_window, self.validity.expires_at
        if window is not None and expires_at is not None and expires_at <= window.starts_at:
            raise ValueError("validity.expires_at must be later than issue_window.starts_at")
        return self


class CampaignChange(Wire):
    """New caps, rates or budget; what is left out stays, and null takes a limit away where there may be none."""

    max_coupons: Annotated[int, Field(ge=1, le=MAX_COUPONS)] | None = None
    max_coupons_per_user: Annotated[int, Field(ge=1, le=MAX_COUPONS_PER_USER)] | None = None
    budget: Money | None = None
    issue_rate: Rate | None = None
    user_rate: Rate | None = None
    merchant_rate: Rate | None = None

    @model_validator(mode="after")
    def _names_a_change(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("names nothing to change")
        for name in ("max_coupons", "max_coupons_per_user", "issue_rate"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        return self


class Counters(Wire):
    """A campaign's ledger: issued = outstanding + reserved + redeemed + expired + deactivated."""

    issued: int
    outstanding: int
    reserved: int
    redeemed: int
    expired: int
    deactivated: int
    remaining: int
    budget_remaining: int | None


class Campaign(Wire):
    """A campaign with its live counters."""

    id: str
    name: str
    status: CampaignStatus
    version: int
    benefit: Benefit
    max_coupons: int
    max_coupons_per_user: int
    budget: Money | None
    issue_window: IssueWindow | None
    validity: Validity
    issue_rate: Rate
    user_rate: Rate | None
    merchant_rate: Rate | None
    code_prefix: str
    counters: Counters


class CampaignList(Wire):
    """All campaigns, the newest first."""

    campaigns: list[Campaign]


class Reason(Wire):
    """Why an operator does what he does."""

    reason: Text


class OptionalReason(Wire):
    """Why, where the caller wants to say."""

    reason: Annotated[str, StringConstraints(max_length=200)] = ""


class IssueBody(Wire):
    """Who is to get a coupon."""

    user_id: OpaqueId


class Coupon(Wire):
    """A coupon as it stands."""

    code: str
    campaign_id: str
    user_id: str
    status: CouponStatus
    benefit: Benefit
    issued_at: Moment
    starts_at: Moment
    expires_at: Moment


class CouponList(Wire):
    """A user's coupons of one campaign, the oldest first."""

    coupons: list[Coupon]


class RedeemBody(Wire):
    """Which order of which merchant the coupon is for; `hold` reserves it until the order is paid."""

    merchant_id: OpaqueId
    order_id: OpaqueId
    order_amount: Amount | None = None
    hold: bool = False
    hold_for: DurationText | None = None

    @model_validator(mode="after")
    def _holds_for_a_bounded_time(self) -> Self:
        if self.hold_for is None:
            return self
        if not self.hold:
            raise ValueError("hold_for goes with hold")
        duration = Duration.parse(self.hold_for)
        if not 0 < duration.days * DAY_MS + duration.exact_ms <= MAX_HOLD_MS:
            raise ValueError(f"hold_for must be between PT1S and PT{MAX_HOLD_MS // 3_600_000}H")
        return self


class Redemption(Wire):
    """A redemption as it stands; `expires_at` is when a reservation lapses."""

    id: str
    code: str
    merchant_id: str
    order_id: str
    status: RedemptionStatus
    discount_amount: int
    at: Moment
    expires_at: Moment | None


class ExtensionRequest(Wire):
    """Until when the campaign's coupons are to stay valid."""

    expires_at: Moment
    reason: Text
    dry_run: bool = False


class Extension(Wire):
    """An extension. It holds from the start; `done` of `total` coupons have it written in their own record."""

    id: str
    campaign_id: str
    expires_at: Moment
    status: Literal["pending", "running", "completed", "failed"]
    total: int
    done: int
    changed: int
    reason: str


class IssuanceStatus(Wire):
    """What the public may know."""

    issuance: Literal["issuing", "paused", "recovering"]
    reason: str
    since: Moment
    retry_after_s: int
    message: str


class BreakerOverride(Wire):
    """The operator's word over the breaker's own; it runs out after `ttl_s`."""

    mode: Annotated[Mode, Strict(False)]
    reason: Text
    ttl_s: Annotated[int, Field(ge=1, le=MAX_OVERRIDE_S)] | None = None


class Breaker(Wire):
    """The breaker as this process sees it."""

    mode: Mode
    issuance: Literal["issuing", "paused", "recovering"]
    reason: str
    since: Moment
    epoch: int


class Problem(BaseModel):
    """An error, as RFC 9457 has it; programs switch on `reason`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    reason: str


def milliseconds(moment: datetime) -> int:
    """The instant in milliseconds since the epoch; what is finer is cut off."""
    delta = moment - EARLIEST
    return delta.days * DAY_MS + delta.seconds * 1000 + delta.microseconds // 1000
