"""A campaign: the promise that every coupon is held against, and how it is divided over shards."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Literal

from service.domain.money import Money, Rate, rate_share, share
from service.domain.validity import Validity

MAX_CAMPAIGNS: Final = 10_000
MAX_ID_LENGTH: Final = 40
MAX_COUPONS: Final = 2**34 - 1
"""What the sequence inside a code can number, per campaign."""
MAX_COUPONS_PER_USER: Final = 1_000
MAX_SHARDS: Final = 64
MAX_USER_BUCKETS: Final = 2**24
USERS_PER_BUCKET: Final = 64
"""Few enough that a bucket of users stays a listpack, many enough that the bucket's own cost vanishes."""


class CampaignStatus(StrEnum):
    """Where a campaign stands in its life."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Amount:
    """A benefit of a fixed amount of money."""

    amount: int
    currency: str
    min_order_amount: int = 0

    def discount(self, order_amount: int | None) -> int:
        """What comes off an order: never more than the order itself, when its amount is known."""
        return self.amount if order_amount is None else min(self.amount, order_amount)


@dataclass(frozen=True, slots=True)
class IssueWindow:
    """Coupons are issued from `starts_at_ms` on and no longer at `ends_at_ms`."""

    starts_at_ms: int
    ends_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """One campaign at one version. `shards` and `user_buckets` are fixed at creation, so that no user ever moves."""

    id: str
    name: str
    status: CampaignStatus
    version: int
    benefit: Amount
    max_coupons: int
    max_coupons_per_user: int
    budget: Money | None
    issue_window: IssueWindow | None
    validity: Validity
    issue_rate: Rate
    user_rate: Rate | None
    merchant_rate: Rate | None
    code_prefix: str
    shards: int
    user_buckets: int
    created_at_ms: int
    status_reason: str = ""
    imported_codes: int | None = None
    """How many codes a merchant has brought, 0 while they are awaited; None where codes are computed."""


class IllegalTransition(Exception):
    """The campaign's status does not allow that verb."""


StatusVerb = Literal["start", "pause", "resume", "stop"]

_ALLOWED: Final[dict[StatusVerb, set[CampaignStatus]]] = {
    "start": {CampaignStatus.DRAFT},
    "pause": {CampaignStatus.SCHEDULED, CampaignStatus.RUNNING},
    "resume": {CampaignStatus.PAUSED},
    "stop": {CampaignStatus.DRAFT, CampaignStatus.SCHEDULED, CampaignStatus.RUNNING, CampaignStatus.PAUSED},
}


def change_status(campaign: Campaign, verb: StatusVerb, reason: str, now_ms: int) -> Campaign:
    """The campaign after an operator's `start`, `pause`, `resume` or `stop`, one version on.

    Asking for what already holds is granted unchanged. Raises IllegalTransition when the life of a campaign
    forbids it: a stopped one stays stopped.
    """
    if verb in ("start", "resume"):
        status = scheduled_status(replace(campaign, status=CampaignStatus.SCHEDULED), now_ms)
    else:
        status = CampaignStatus.PAUSED if verb == "pause" else CampaignStatus.STOPPED
    if campaign.status is status:
        return campaign
    if campaign.status not in _ALLOWED[verb]:
        raise IllegalTransition(f"a campaign that is {campaign.status} does not {verb}")
    if verb == "start" and campaign.imported_codes == 0:
        raise IllegalTransition("a campaign whose codes have not been imported does not start")
    return replace(campaign, status=status, status_reason=reason, version=campaign.version + 1)


def scheduled_status(campaign: Campaign, now_ms: int) -> CampaignStatus:
    """The status that the issue window gives at that instant to a campaign that nobody paused or stopped."""
    if campaign.status not in (CampaignStatus.SCHEDULED, CampaignStatus.RUNNING):
        return campaign.status
    if campaign.issue_window is None or campaign.issue_window.starts_at_ms <= now_ms < campaign.issue_window.ends_at_ms:
        return CampaignStatus.RUNNING
    return CampaignStatus.SCHEDULED if now_ms < campaign.issue_window.starts_at_ms else CampaignStatus.ENDED


def shards_for(wanted: int, campaign: Campaign) -> int:
    """How many shards the campaign can have so that each holds at least one coupon and one token of every rate."""
    divided = [rate for rate in (campaign.issue_rate, campaign.merchant_rate) if rate is not None]
    bounds = [campaign.max_coupons, *(min(rate.burst, rate.per_second_milli) for rate in divided)]
    return max(1, min(wanted, MAX_SHARDS, *bounds))


def user_buckets_for(max_coupons: int, shards: int) -> int:
    """How many buckets of users each shard has, fixed at creation: enough for one coupon a user."""
    return max(1, min(MAX_USER_BUCKETS, -(-max_coupons // (USERS_PER_BUCKET * shards))))


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """What one shard may give out: its part of stock, budget and rates. The limits per user are not divided."""

    max_coupons: int
    budget: int | None
    issue_rate: Rate
    merchant_rate: Rate | None


def shard_limits(campaign: Campaign, shard: int) -> ShardLimits:
    """The part of the campaign's promise that falls to one shard; the parts sum to the whole exactly."""
    issue_rate = rate_share(campaign.issue_rate, campaign.shards, shard)
    assert issue_rate is not None
    return ShardLimits(
        max_coupons=share(campaign.max_coupons, campaign.shards, shard),
        budget=_budget_share(campaign, shard),
        issue_rate=issue_rate,
        merchant_rate=rate_share(campaign.merchant_rate, campaign.shards, shard),
    )


def _budget_share(campaign: Campaign, shard: int) -> int | None:
    """Whole coupons' worth are divided, so that no shard is left with half a coupon; the first keeps the remainder."""
    if campaign.budget is None:
        return None
    coupons, remainder = divmod(campaign.budget.amount, campaign.benefit.amount)
    return share(coupons, campaign.shards, shard) * campaign.benefit.amount + (remainder if shard == 0 else 0)
