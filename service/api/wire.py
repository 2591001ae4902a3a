"""The wire models: what callers send and receive, in the words of the API."""

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, StringConstraints, model_validator

from service.api.benefits import Benefit, CouponBenefit, RedEnvelopeBenefit
from service.api.validity import Validity
from service.api.vocabulary import (
    Amount,
    CampaignId,
    DurationText,
    IssueCoupling,
    IssueWindow,
    Messages,
    Moment,
    Money,
    OpaqueId,
    Rate,
    Text,
    Wire,
)
from service.domain.breaker import Mode
from service.domain.campaign import MAX_COUPONS, MAX_COUPONS_PER_USER, CampaignStatus
from service.domain.codes import MAX_CODE_LENGTH
from service.domain.coupon import MAX_HOLD_MS, CouponStatus, RedemptionStatus
from service.domain.events import STATUS_AFTER
from service.domain.limits import MAX_COUPONS_PER_ORDER
from service.domain.validity import DAY_MS, Duration
from service.domain.webhooks import LONGEST_URL, WebhookStatus


def _event_type(name: str) -> str:
    if name not in STATUS_AFTER:
        raise ValueError(f"must be one of {', '.join(STATUS_AFTER)}")
    return name


EventType = Annotated[str, AfterValidator(_event_type), Field(examples=["coupon.redeemed"])]
MAX_OVERRIDE_S: Final = 7 * 86_400
MAX_CODES: Final = 400
"""How many codes one deactivation names; so many fit into a body."""
Limit = Annotated[int, Field(ge=1, le=MAX_COUPONS)]
UserLimit = Annotated[int, Field(ge=1, le=MAX_COUPONS_PER_USER)]
OrderLimit = Annotated[int, Field(ge=1, le=MAX_COUPONS_PER_ORDER)]


def _same_currency(benefit: Benefit, budget: Money | None) -> None:
    if budget is not None and budget.currency != benefit.currency:
        raise ValueError(f"budget.currency is {budget.currency}, but the benefit is in {benefit.currency}")


class CampaignRequest(Wire):
    """A new campaign. It is a draft until it is started."""

    id: CampaignId
    name: Text
    benefit: Benefit
    max_coupons: Limit
    max_coupons_per_user: UserLimit = 1
    max_quota_per_user: UserLimit | None = Field(None, description="How far the quota of one user may be raised.")
    max_coupons_per_day: Limit | None = None
    max_coupons_per_user_per_day: UserLimit | None = None
    max_coupons_per_order: OrderLimit | None = Field(None, description="Such a campaign has a single shard.")
    max_redemptions_per_merchant: Limit | None = None
    budget: Money | None = None
    issue_window: IssueWindow | None = None
    validity: Validity
    issue_rate: Rate
    user_rate: Rate | None = None
    merchant_rate: Rate | None = None
    issue_coupling: IssueCoupling | None = None
    code_prefix: Annotated[str, StringConstraints(pattern=r"^[A-Z0-9]{2,8}$")] | None = Field(
        None, description="Begins every code; by default taken from the id."
    )
    codes: Literal["computed", "imported"] = Field(
        "computed", description="Imported ones are a merchant's own; there are a million at most."
    )
    messages: Messages = Field({})

    @model_validator(mode="after")
    def _money_is_in_one_currency(self) -> Self:
        _same_currency(self.benefit, self.budget)
        return self

    @model_validator(mode="after")
    def _every_share_is_a_coupon(self) -> Self:
        if isinstance(self.benefit, RedEnvelopeBenefit):
            if self.max_coupons != self.benefit.shares:
                raise ValueError("max_coupons must be the shares of the red envelope")
            if self.budget is not None and self.budget.amount != self.benefit.pot:
                raise ValueError("budget must be the pot of the red envelope, or left out")
        return self

    @model_validator(mode="after")
    def _coupons_outlive_their_issue(self) -> Self:
        window, expires_at = self.issue_window, self.validity.expires_at
        if window is not None and expires_at is not None and expires_at <= window.starts_at:
            raise ValueError("validity.expires_at must be later than issue_window.starts_at")
        return self


class CampaignChange(Wire):
    """New caps, rates or budget; what is left out stays, and null takes a limit away where there may be none."""

    max_coupons: Limit | None = None
    max_coupons_per_user: UserLimit | None = None
    max_quota_per_user: UserLimit | None = None
    max_coupons_per_day: Limit | None = None
    max_coupons_per_user_per_day: UserLimit | None = None
    max_coupons_per_order: OrderLimit | None = None
    max_redemptions_per_merchant: Limit | None = None
    budget: Money | None = None
    issue_rate: Rate | None = None
    user_rate: Rate | None = None
    merchant_rate: Rate | None = None
    messages: Messages | None = None
    issue_coupling: IssueCoupling | None = None

    @model_validator(mode="after")
    def _names_a_change(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("names nothing to change")
        for name in ("max_coupons", "max_coupons_per_user", "issue_rate", "messages"):
            if name in self.model_fields_set and getattr(self, name) is None:
                raise ValueError(f"{name} cannot be null")
        return self


class Counters(Wire):
    """A campaign's ledger: issued = outstanding + reserved + redeemed + expired + deactivated.

    `liability` is what the outstanding and reserved coupons may cost at most, in minor units.
    """

    issued: int
    outstanding: int
    reserved: int
    redeemed: int
    expired: int
    deactivated: int
    remaining: int
    budget_remaining: int | None
    liability: int


class Campaign(Wire):
    """A campaign with its live counters."""

    id: str
    name: str
    status: CampaignStatus
    version: int
    benefit: Benefit
    max_coupons: int
    max_coupons_per_user: int
    max_quota_per_user: int | None
    max_coupons_per_day: int | None
    max_coupons_per_user_per_day: int | None
    max_coupons_per_order: int | None
    max_redemptions_per_merchant: int | None
    budget: Money | None
    issue_window: IssueWindow | None
    validity: Validity
    issue_rate: Rate
    user_rate: Rate | None
    merchant_rate: Rate | None
    issue_coupling: IssueCoupling | None
    code_prefix: str
    codes: Literal["computed", "imported"]
    messages: Messages
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
    benefit: CouponBenefit
    issued_at: Moment
    starts_at: Moment
    expires_at: Moment


class CouponList(Wire):
    """A user's coupons of one campaign, the oldest first."""

    coupons: list[Coupon]


class QuotaRequest(Wire):
    """How many coupons of the campaign a user may hold, and what he has earned that by."""

    max_coupons: UserLimit
    reason: Text


class Quota(Wire):
    """How many coupons of the campaign a user may hold."""

    campaign_id: str
    user_id: str
    max_coupons: int


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


class WebhookRequest(Wire):
    """Where events are to be told, and which; of one campaign or of all."""

    url: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)] = Field(
        examples=["https://shop.example/coupons"]
    )
    types: Annotated[list[EventType], Field(min_length=1, max_length=len(STATUS_AFTER))]
    campaign_id: CampaignId | None = None


class Webhook(Wire):
    """A webhook, and how its last deliveries went; one that kept failing is disabled and told no more."""

    id: str
    url: str
    types: list[str]
    campaign_id: str | None
    created_at: Moment
    status: WebhookStatus
    failures: int
    last_failure: str | None
    retry_at: Moment | None


class NewWebhook(Webhook):
    """A webhook with the secret that signs its messages. It is shown this once."""

    secret: str


class WebhookList(Wire):
    """All webhooks, the oldest first."""

    webhooks: list[Webhook]


class Problem(BaseModel):
    """An error, as RFC 9457 has it; programs switch on `reason`."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    reason: str
