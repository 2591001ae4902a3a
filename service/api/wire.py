"""The wire models: what callers send and receive, in the words of the API."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, StringConstraints, model_validator

from service.api.vocabulary import (
    Amount,
    Benefit,
    CampaignId,
    DurationText,
    IssueWindow,
    Moment,
    Money,
    OpaqueId,
    Rate,
    Text,
    Validity,
    Wire,
)
from service.domain.breaker import Mode
from service.domain.campaign import MAX_COUPONS, MAX_COUPONS_PER_USER, CampaignStatus
from service.domain.coupon import MAX_HOLD_MS, CouponStatus, RedemptionStatus
from service.domain.validity import DAY_MS, Duration

MAX_OVERRIDE_S: Final = 7 * 86_400


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
    codes: Literal["computed", "imported"] = Field(
        "computed", description="Imported ones are a merchant's own; there are a million at most."
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
    codes: Literal["computed", "imported"]
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
