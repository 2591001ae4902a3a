"""A campaign: the promise that every coupon is held against, and how it is divided over shards."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Literal

from service.domain.benefit import Benefit, RedEnvelope, pot_share
from service.domain.limits import DailyLimits, HolderLimits
from service.domain.money import Money, Rate, rate_share, share
from service.domain.validity import Validity

MAX_CAMPAIGNS: Final = 10_000
MAX_ID_LENGTH: Final = 40
MAX_COUPONS: Final = 2**34 - 1
"""What the sequence inside a code can number, per campaign."""
MAX_COUPONS_PER_USER: Final = 1_000
MAX_SHARDS: Final = 64
USERS_PER_BUCKET: Final = 3_500_000
"""Many, since the users of a batch who share a bucket are looked up and written together; a little less than the
3,670,016 at which Valkey's tables grow once more. So many make a key of nearly 200 MB: whoever moves slots of a Cluster
divides his campaigns into shards."""


class CampaignStatus(StrEnum):
    """Where a campaign stands in its life."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class IssueWindow:
    """Coupons are issued from `starts_at_ms` on and no longer at `ends_at_ms`."""

    starts_at_ms: int
    ends_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """One campaign at one version. `shards` and `user_buckets` are fixed at creation, so that no user ever moves.

    `status_since_ms` is 0 where nobody noted it. `messages` are what the public reads in a pause, by language tag.
    """

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
    shards: int
    user_buckets: int
    created_at_ms: int
    status_reason: str = ""
    max_quota_per_user: int | None = None
    daily_limits: DailyLimits | None = None
    holder_limits: HolderLimits | None = None
    imported_codes: int | None = None
    """How many codes a merchant has brought, 0 while they are awaited; None where codes are computed."""
    status_since_ms: int = 0
    messages: Mapping[str, str] = field(default_factory=dict)
    redemptions_per_second_milli: int | None = None
    """How many coupons, in thousandths, all merchants can redeem a second: no more are out than they can in time."""
    stop_the_clock: bool = False
    """Whether time in which redemption was down is added to its coupons' validity."""


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
    return replace(campaign, status=status, status_reason=reason, status_since_ms=now_ms, version=campaign.version + 1)


def scheduled_status(campaign: Campaign, now_ms: int) -> CampaignStatus:
    """The status that the issue window gives at that instant to a campaign that nobody paused or stopped."""
    if campaign.status not in (CampaignStatus.SCHEDULED, CampaignStatus.RUNNING):
        return campaign.status
    if campaign.issue_window is None or campaign.issue_window.starts_at_ms <= now_ms < campaign.issue_window.ends_at_ms:
        return CampaignStatus.RUNNING
    return CampaignStatus.SCHEDULED if now_ms < campaign.issue_window.starts_at_ms else CampaignStatus.ENDED


def shards_for(wanted: int, campaign: Campaign) -> int:
    """How many shards the campaign can have so that each holds at least one of all that is divided.

    Where an order may hold only so many coupons there is one, since the coupons of an order lie in any.
    """
    divided = [rate for rate in (campaign.issue_rate, campaign.merchant_rate) if rate is not None]
    daily, holders = campaign.daily_limits, campaign.holder_limits
    bounds = [
        campaign.max_coupons,
        *(min(rate.burst, rate.per_second_milli) for rate in divided),
        *([daily.max_coupons] if daily is not None and daily.max_coupons is not None else []),
        *([holders.per_merchant] if holders is not None and holders.per_merchant is not None else []),
        *([1] if holders is not None and holders.per_order is not None else []),
    ]
    if campaign.redemptions_per_second_milli is not None:
        bounds.append(campaign.redemptions_per_second_milli)
    return max(1, min(wanted, MAX_SHARDS, *bounds))


def user_buckets_for(max_coupons: int, shards: int) -> int:
    """How many buckets of users each shard has, fixed at creation: enough for one coupon a user."""
    return max(1, -(-max_coupons // (USERS_PER_BUCKET * shards)))


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """What one shard may give out: its part of all that is divided. The limits per user and order are not."""

    max_coupons: int
    budget: int | None
    pot: int | None
    issue_rate: Rate
    merchant_rate: Rate | None
    max_coupons_per_day: int | None
    max_redemptions_per_merchant: int | None
    redemptions_per_second_milli: int | None


def shard_limits(campaign: Campaign, shard: int) -> ShardLimits:
    """The part of the campaign's promise that falls to one shard; the parts sum to the whole exactly."""
    issue_rate = rate_share(campaign.issue_rate, campaign.shards, shard)
    redemptions = campaign.redemptions_per_second_milli
    assert issue_rate is not None
    daily, holders = campaign.daily_limits, campaign.holder_limits
    return ShardLimits(
        max_coupons=share(campaign.max_coupons, campaign.shards, shard),
        budget=_budget_share(campaign, shard),
        pot=_pot_share(campaign, shard),
        issue_rate=issue_rate,
        merchant_rate=rate_share(campaign.merchant_rate, campaign.shards, shard),
        max_coupons_per_day=_limit_share(daily.max_coupons if daily else None, campaign, shard),
        max_redemptions_per_merchant=_limit_share(holders.per_merchant if holders else None, campaign, shard),
        redemptions_per_second_milli=None if redemptions is None else share(redemptions, campaign.shards, shard),
    )


def _limit_share(limit: int | None, campaign: Campaign, shard: int) -> int | None:
    return None if limit is None else share(limit, campaign.shards, shard)


def _pot_share(campaign: Campaign, shard: int) -> int | None:
    if not isinstance(campaign.benefit, RedEnvelope):
        return None
    first = sum(share(campaign.benefit.shares, campaign.shards, earlier) for earlier in range(shard))
    return pot_share(campaign.benefit, first, share(campaign.benefit.shares, campaign.shards, shard))


def _budget_share(campaign: Campaign, shard: int) -> int | None:
    """Whole coupons' worth are divided, so that no shard is left with half a coupon; the first keeps the remainder.

    The budget of a red envelope is its pot, which is divided by shares.
    """
    if campaign.budget is None or isinstance(campaign.benefit, RedEnvelope):
        return None
    worth = campaign.benefit.worst_case
    coupons, remainder = divmod(campaign.budget.amount, worth)
    return share(coupons, campaign.shards, shard) * worth + (remainder if shard == 0 else 0)
