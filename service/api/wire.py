"""The wire models: what callers send and receive, in the words of the API.

Those of campaigns, extensions and webhooks stand in files of their own.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from service.api.benefits import CouponBenefit
from service.api.vocabulary import EXACT, Amount, CampaignId, DurationText, Moment, OpaqueId, Text, Wire
from service.domain.breaker import Mode
from service.domain.codes import MAX_CODE_LENGTH
from service.domain.coupon import MAX_HOLD_MS, CouponStatus, RedemptionStatus
from service.domain.validity import DAY_MS, Duration

MAX_OVERRIDE_S: Final = 7 * 86_400
MAX_CODES: Final = 400
"""How many codes one deactivation names; so many fit into a body."""


class Reason(Wire):
    """Why an operator does what he does."""

    reason: Text


class OptionalReason(Wire):
    """Why, where the caller wants to say."""

    reason: Annotated[str, StringConstraints(max_length=200)] = ""


# The two bodies that come by the thousand are dataclasses, which are made in half the time.
@dataclass(slots=True, config=EXACT)
class IssueBody:
    """Who is to get a coupon."""

    user_id: OpaqueId


class Coupon(Wire):
    """A coupon as it stands."""

    code: str
    campaign_id: str
    user_id: str
    status: CouponStatus
    benefit: CouponBenefit
    issued_at: Moment
    starts_at: Moment
    expires_at: Moment


class CouponList(Wire):
    """A user's coupons of one campaign, the oldest first."""

    coupons: list[Coupon]


class DeactivationRequest(Wire):
    """Codes of one campaign to take out of use."""

    codes: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=MAX_CODE_LENGTH)]],
        Field(min_length=1, max_length=MAX_CODES),
    ]
    reason: Text


class DeactivatedCoupon(Wire):
    """What came of one code: `deactivated`, now or already before, or why not."""

    code: str
    outcome: Literal["deactivated", "already_redeemed", "reserved_elsewhere", "expired", "not_found"]


class Deactivation(Wire):
    """What came of each code, and how many are deactivated."""

    campaign_id: str
    deactivated: int
    coupons: list[DeactivatedCoupon]


class TicketRequest(Wire):
    """Who wants a place in line."""

    user_id: OpaqueId


TicketStatus = Literal["waiting", "admitted", "expired", "used"]


class Ticket(Wire):
    """A place in a campaign's line; send `ticket` with the request to issue, as `Tidegate-Ticket`, once it is admitted.

    `expected_at` is when, as far as anybody knows, and `admitted_until` for how long. There is no ticket where nobody
    waits, and everybody may go straight in.
    """

    ticket: str | None
    campaign_id: str
    user_id: str
    status: TicketStatus
    position: int
    expected_at: Moment
    admitted_until: Moment | None
    retry_after_s: int


@dataclass(slots=True, config=EXACT)
class RedeemBody:
    """Which order of which merchant the coupon is for; `hold` reserves it until the order is paid."""

    merchant_id: OpaqueId
    order_id: OpaqueId
    order_amount: Amount | None = None
    hold: bool = False
    hold_for: DurationText | None = None

    @field_validator("hold_for")
    @classmethod
    def _holds_for_a_bounded_time(cls, hold_for: str | None, told: ValidationInfo) -> str | None:
        if hold_for is None:
            return None
        if not told.data.get("hold", True):
            raise ValueError("goes with hold")
        duration = Duration.parse(hold_for)
        if not 0 < duration.days * DAY_MS + duration.exact_ms <= MAX_HOLD_MS:
            raise ValueError(f"must be between PT1S and PT{MAX_HOLD_MS // 3_600_000}H")
        return hold_for


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


class BusyRequest(Wire):
    """How long a merchant takes no coupons: of one campaign, or of all that there are. Give `until` or `for`."""

    until: Moment | None = None
    for_: DurationText | None = Field(None, alias="for", examples=["PT10M"])
    reason: Text
    campaign_id: CampaignId | None = None

    @model_validator(mode="after")
    def _is_one_time(self) -> Self:
        if (self.until is None) == (self.for_ is None):
            raise ValueError("give either until or for")
        return self


class BusyWord(Wire):
    """What holds for one campaign: the merchant takes none of its coupons before `until`."""

    campaign_id: str
    until: Moment
    reason: str


class Merchant(Wire):
    """A merchant as he says of himself; `busy` is empty where he takes coupons."""

    id: str
    busy: list[BusyWord]


class Job(Wire):
    """A long job. An `error` beside a status that is not failed is one that will be tried again."""

    id: str
    kind: str
    campaign_id: str
    status: Literal["pending", "running", "completed", "failed"]
    total: int
    done: int
    started_at: Moment | None
    finished_at: Moment | None
    error: str | None


class JobList(Wire):
    """Long jobs, the newest first."""

    jobs: list[Job]


class IssuanceStatus(Wire):
    """What the public may know."""

    issuance: Literal["issuing", "paused", "recovering"]
    reason: str
    since: Moment
    retry_after_s: int
    message: str


class BreakerOverride(Wire):
    """The operator's word over a breaker's own, until `ttl_s` is over. In `shadow` it decides, and refuses nobody."""

    mode: Annotated[Mode, Strict(False)]
    reason: Text
    ttl_s: Annotated[int, Field(ge=1, le=MAX_OVERRIDE_S)] | None = None


class OverrideInForce(Wire):
    """The operator's last word, as it stands."""

    actor: str
    reason: str
    expires_at: Moment | None


class Breaker(Wire):
    """The breaker as this process sees it, of all campaigns or of one."""

    mode: Mode
    issuance: Literal["issuing", "paused", "recovering"]
    reason: str
    since: Moment
    epoch: int
    override: OverrideInForce


class Problem(BaseModel):
    """An error, as RFC 9457 has it; programs switch on `reason`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    reason: str
