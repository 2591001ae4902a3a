"""Campaigns on the wire: what operators ask for and are told."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from service.api.benefits import Benefit, RedEnvelopeBenefit
from service.api.validity import Validity
from service.api.vocabulary import CampaignId, IssueCoupling, IssueWindow, Messages, Money, Rate, Text, Wire
from service.domain.campaign import MAX_COUPONS, MAX_COUPONS_PER_USER, CampaignStatus
from service.domain.limits import MAX_COUPONS_PER_ORDER

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


class QuotaRequest(Wire):
    """How many coupons of the campaign a user may hold, and what he has earned that by."""

    max_coupons: UserLimit
    reason: Text


class Quota(Wire):
    """How many coupons of the campaign a user may hold."""

    campaign_id: str
    user_id: str
    max_coupons: int
