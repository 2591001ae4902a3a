"""Why: what the store must do, said a second time and as plainly as possible, so that the two can be compared.

One model is one shard, without batches, packing or chunks. A coupon has the status that was last written and the one
that holds by the clock; the ledger counts the former, everybody is answered by the latter.
"""

from dataclasses import dataclass, replace

from service.domain.benefit import Percent, RedEnvelope
from service.domain.campaign import Campaign, CampaignStatus, ShardLimits, shard_limits
from service.domain.coupon import Amounts, Counters, Coupon, CouponStatus, Redemption, RedemptionStatus
from service.domain.money import Rate
from service.domain.outcomes import (
    AlreadyRedeemed,
    BudgetExhausted,
    CampaignNotRunning,
    CouponDeactivated,
    DailyLimit,
    Deactivated,
    DeactivateOutcome,
    Expired,
    IssuancePaused,
    Issued,
    IssueOutcome,
    NotYetValid,
    OrderAmountRequired,
    OrderTooSmall,
    PerMerchantLimit,
    PerOrderLimit,
    PerUserDailyLimit,
    PerUserLimit,
    QuotaOutcome,
    QuotaRaised,
    QuotaTooHigh,
    RateLimited,
    Redeemed,
    RedeemOutcome,
    RedemptionReplayed,
    Replayed,
    ReservedElsewhere,
    SettleOutcome,
    SoldOut,
    UnknownCode,
    WrongRedemptionStatus,
)
from service.domain.validity import DAY_MS, Duration, FixedValidity, usable_at
from service.store.catalogue import CapBelowIssued
from tests.store.model_rules import day_of, discount, may_be_drawn, until_tomorrow_ms, worth

MICRO = 1_000_000
LIVE = (CouponStatus.ISSUED, CouponStatus.RESERVED)
VERBS = {
    "commit": (RedemptionStatus.RESERVED, RedemptionStatus.COMMITTED, CouponStatus.REDEEMED),
    "release": (RedemptionStatus.RESERVED, RedemptionStatus.RELEASED, CouponStatus.ISSUED),
    "rollback": (RedemptionStatus.COMMITTED, RedemptionStatus.ROLLED_BACK, CouponStatus.ISSUED),
}


@dataclass
class Bucket:
    """Micro-tokens at an instant."""

    name: str
    level: int
    at_ms: int

    def refusal(self, rate: Rate, now_ms: int) -> RateLimited | None:
        """Refill, and say no where there is no whole token."""
        self.level = min(rate.burst * MICRO, self.level + (now_ms - self.at_ms) * rate.per_second_milli)
        self.at_ms = now_ms
        if self.level >= MICRO:
            return None
        wait_ms = -((self.level - MICRO) // rate.per_second_milli)
        return RateLimited(self.name, rate.burst, rate.per_second_milli, wait_ms)


@dataclass
class Held:
    """A coupon as it was last written."""

    first_answer: Issued
    user: str
    written: CouponStatus = CouponStatus.ISSUED
    attempts: int = 0
    redemption: Redemption | None = None


class Model:
    """One shard of a campaign. Its methods mirror the store's verbs.

    What was drawn from a pot nobody can know beforehand: `issue` is told, and says whether it may be.
    """

    def __init__(self, campaign: Campaign, now_ms: int, shard: int = 0) -> None:
        self.campaign = campaign
        self.shard = shard
        self.now_ms = now_ms
        self.coupons: list[Held] = []
        self.quotas: dict[str, int] = {}
        self.claims: dict[tuple[str, str], int] = {}
        self._buckets: dict[tuple[str, str], Bucket] = {}

    @property
    def limits(self) -> ShardLimits:
        """This shard's part of what the campaign promises."""
        return shard_limits(self.campaign, self.shard)

    def amounts(self) -> Amounts:
        """The ledger in money, counted from what was last written."""
        by_status = {
            status: sum(self._worth(held) for held in self.coupons if held.written is status) for status in CouponStatus
        }
        return Amounts(sum(by_status.values()), *by_status.values())

    def counters(self) -> Counters:
        """The ledger, counted from what was last written."""
        written = [held.written for held in self.coupons]
        counts = {status: written.count(status) for status in CouponStatus}
        amounts = self.amounts()
        return Counters(
            len(written),
            counts[CouponStatus.ISSUED],
            counts[CouponStatus.RESERVED],
            counts[CouponStatus.REDEEMED],
            counts[CouponStatus.EXPIRED],
            counts[CouponStatus.DEACTIVATED],
            amounts.outstanding + amounts.reserved + amounts.redeemed,
        )

    def expires_at(self, held: Held) -> int:
        """When the coupon's validity is over."""
        return held.first_answer.expires_at_ms

    def status(self, held: Held) -> CouponStatus:
        """The status that holds by the clock."""
        status = held.written
        if status is CouponStatus.RESERVED and self._lapsed(held):
            status = CouponStatus.ISSUED
        return (
            CouponStatus.EXPIRED if status is CouponStatus.ISSUED and self.expires_at(held) <= self.now_ms else status
        )

    def coupon(self, sequence: int) -> Coupon:
        """The coupon as anybody sees it."""
        held = self.coupons[sequence]
        first = held.first_answer
        status, expires_at_ms = self.status(held), self.expires_at(held)
        return Coupon(
            *(self.shard, sequence, held.user, status, first.issued_at_ms, first.starts_at_ms, expires_at_ms),
            first.drawn_amount,
        )

    def issue(self, user: str, key: str, drawn_amount: int | None = None) -> IssueOutcome:
        """A coupon for the user, or the one that this key got before."""
        if (claimed := self.claims.get((user, key))) is not None:
            first = self.coupons[claimed].first_answer
            return Replayed(claimed, first.issued_at_ms, first.starts_at_ms, first.expires_at_ms, first.drawn_amount)
        starts_at_ms, expires_at_ms = self._window(len(self.coupons))
        limits = self.limits
        wanted = {("user", user): self.campaign.user_rate, ("campaign", ""): limits.issue_rate}
        if (not_issuing := self._not_issuing(expires_at_ms)) is not None:
            return not_issuing
        if sum(held.user == user for held in self.coupons) >= self._cap(user):
            return PerUserLimit()
        if len(self.coupons) >= limits.max_coupons:
            return SoldOut()
        committed = self.counters().budget_committed
        if limits.budget is not None and committed + self.campaign.benefit.worst_case > limits.budget:
            return BudgetExhausted()
        if (over := self._over_in_day(user)) is not None:
            return over
        if (limited := self._charge(wanted)) is not None:
            return limited
        benefit = self.campaign.benefit
        if isinstance(benefit, RedEnvelope):
            assert limits.pot is not None
            assert drawn_amount is not None
            left = limits.pot - self.amounts().issued
            assert may_be_drawn(benefit, left, limits.max_coupons - len(self.coupons), drawn_amount)
        issued = Issued(len(self.coupons), self.now_ms, starts_at_ms, expires_at_ms, drawn_amount)
        self.claims[user, key] = issued.sequence
        self.coupons.append(Held(issued, user))
        return issued

    def redeem(self, sequence: int, merchant: str, order: str, amount: int | None, hold_ms: int) -> RedeemOutcome:
        """A redemption or a reservation for the merchant's order, or the one it has already."""
        if sequence >= len(self.coupons):
            return UnknownCode()
        held = self.coupons[sequence]
        status, before = self.status(held), held.redemption
        taken = status in (CouponStatus.RESERVED, CouponStatus.REDEEMED)
        if taken and before is not None and (before.merchant_id, before.order_id) == (merchant, order):
            return RedemptionReplayed(before)
        match status:
            case CouponStatus.REDEEMED:
                return AlreadyRedeemed()
            case CouponStatus.DEACTIVATED:
                return Deactivated()
            case CouponStatus.EXPIRED:
                return Expired(self.expires_at(held))
            case CouponStatus.RESERVED:
                assert before is not None
                return ReservedElsewhere((before.hold_expires_at_ms or 0) - self.now_ms)
        starts_at_ms, expires_at_ms = held.first_answer.starts_at_ms, self.expires_at(held)
        usable_at_ms = usable_at(self.campaign.validity, max(starts_at_ms, self.now_ms), expires_at_ms)
        if usable_at_ms != self.now_ms:
            wait_ms = None if usable_at_ms is None else usable_at_ms - self.now_ms
            return NotYetValid(starts_at_ms, expires_at_ms, usable_at_ms, wait_ms)
        if (refused := self._order_refusal(merchant, order, amount)) is not None:
            return refused
        if (limited := self._charge({("merchant", merchant): self.limits.merchant_rate})) is not None:
            return limited
        held.attempts += 1
        held.redemption = Redemption(
            self.shard,
            sequence,
            held.attempts,
            merchant,
            order,
            RedemptionStatus.RESERVED if hold_ms else RedemptionStatus.COMMITTED,
            discount(self.campaign.benefit, held.first_answer.drawn_amount, amount),
            self.now_ms,
            self.now_ms + hold_ms if hold_ms else None,
        )
        held.written = CouponStatus.RESERVED if hold_ms else CouponStatus.REDEEMED
        return Redeemed(held.redemption)

    def settle(self, verb: str, sequence: int, attempt: int) -> SettleOutcome:
        """Move one attempt on."""
        if sequence >= len(self.coupons) or not 0 < attempt <= self.coupons[sequence].attempts:
            return UnknownCode()
        held = self.coupons[sequence]
        if attempt < held.attempts:
            return WrongRedemptionStatus("superseded")
        redemption = held.redemption
        assert redemption is not None
        if redemption.status is RedemptionStatus.RESERVED and self._lapsed(held):
            redemption = replace(redemption, status=RedemptionStatus.RELEASED)
        before, after, written = VERBS[verb]
        if redemption.status is after:
            return RedemptionReplayed(redemption)
        if redemption.status is not before:
            return WrongRedemptionStatus(redemption.status)
        held.redemption = replace(redemption, status=after, hold_expires_at_ms=None)
        held.written = written
        held.written = self.status(held)
        return Redeemed(held.redemption)

    def deactivate(self, sequence: int) -> DeactivateOutcome:
        """Take a coupon out of use that is free, or that waits for money to come back."""
        if sequence >= len(self.coupons):
            return UnknownCode()
        held = self.coupons[sequence]
        match self.status(held):
            case CouponStatus.REDEEMED:
                return AlreadyRedeemed()
            case CouponStatus.EXPIRED if self.expires_at(held) <= self.now_ms:
                return Expired(self.expires_at(held))
            case CouponStatus.RESERVED:
                assert held.redemption is not None
                return ReservedElsewhere((held.redemption.hold_expires_at_ms or 0) - self.now_ms)
        if held.written is CouponStatus.RESERVED:
            self._free(held)
        held.written = CouponStatus.DEACTIVATED
        return CouponDeactivated(self.coupon(sequence))

    def deactivate_user(self, user: str) -> list[DeactivateOutcome]:
        """Take all that the user holds out of use."""
        return [self.deactivate(number) for number, held in enumerate(self.coupons) if held.user == user]

    def raise_quota(self, user: str, max_coupons: int) -> QuotaOutcome:
        """Let the user hold so many, unless that is too many."""
        most = max(self.campaign.max_quota_per_user or 0, self.campaign.max_coupons_per_user)
        if max_coupons > most:
            return QuotaTooHigh(most)
        if max_coupons > self._cap(user):
            self.quotas[user] = max_coupons
        return QuotaRaised(self._cap(user))

    def refuses(self, campaign: Campaign) -> CapBelowIssued | None:
        """Whether the campaign as given would promise less than was given out."""
        new, old, committed = shard_limits(campaign, self.shard), self.limits, self.counters().budget_committed
        if old.max_coupons > new.max_coupons < len(self.coupons):
            return CapBelowIssued("max_coupons", len(self.coupons))
        if new.budget is not None and new.budget < committed and (old.budget is None or new.budget < old.budget):
            return CapBelowIssued("budget", committed)
        return None

    def tidied(self, sequence: int) -> None:
        """The store says that it has written what holds by the clock; it may only where that is news."""
        held = self.coupons[sequence]
        assert held.written in LIVE
        assert self.status(held) is not held.written
        if held.written is CouponStatus.RESERVED:
            self._free(held)
        held.written = self.status(held)

    def untidy(self) -> list[int]:
        """The coupons that were last written with another status than holds by the clock."""
        return [number for number, held in enumerate(self.coupons) if self.status(held) is not held.written]

    def _window(self, sequence: int) -> tuple[int, int]:
        validity = self.campaign.validity
        if isinstance(validity, FixedValidity):
            starts_at_ms = validity.starts_at_ms or 0
            if validity.waves is not None:
                starts = validity.waves.starts_at_ms
                starts_at_ms = starts[(sequence + self.shard) % len(starts)]
            return max(self.now_ms, starts_at_ms), validity.expires_at_ms
        first_ms, waves = self.now_ms + _length_ms(validity.wait), validity.waves
        wave, last = ((sequence + self.shard) % waves.count, waves.count - 1) if waves else (0, 0)
        step_ms = _length_ms(waves.every) if waves else 0
        return first_ms + wave * step_ms, first_ms + last * step_ms + _length_ms(validity.duration)

    def _not_issuing(self, expires_at_ms: int) -> IssuancePaused | CampaignNotRunning | None:
        status, window = self.campaign.status, self.campaign.issue_window
        if status is CampaignStatus.PAUSED:
            return IssuancePaused("operator", 30)
        if status not in (CampaignStatus.SCHEDULED, CampaignStatus.RUNNING):
            return CampaignNotRunning(status, None)
        if window is not None and self.now_ms < window.starts_at_ms:
            return CampaignNotRunning(CampaignStatus.SCHEDULED, window.starts_at_ms - self.now_ms)
        if expires_at_ms <= self.now_ms or (window is not None and window.ends_at_ms <= self.now_ms):
            return CampaignNotRunning(CampaignStatus.ENDED, None)
        return None

    def _charge(self, wanted: dict[tuple[str, str], Rate | None]) -> RateLimited | None:
        rates = {name: rate for name, rate in wanted.items() if rate is not None}
        for name, rate in rates.items():
            bucket = self._buckets.setdefault(name, Bucket(name[0], rate.burst * MICRO, self.now_ms))
            if (limited := bucket.refusal(rate, self.now_ms)) is not None:
                return limited
        for name in rates:
            self._buckets[name].level -= MICRO
        return None

    def _worth(self, held: Held) -> int:
        return worth(self.campaign.benefit, held.first_answer.drawn_amount)

    def _cap(self, user: str) -> int:
        quota = min(self.quotas.get(user, 0), self.campaign.max_quota_per_user or 0)
        return max(self.campaign.max_coupons_per_user, quota)

    def _over_in_day(self, user: str) -> PerUserDailyLimit | DailyLimit | None:
        daily, zone = self.campaign.daily_limits, self.campaign.validity.timezone
        if daily is None:
            return None
        today = day_of(self.now_ms, zone)
        users = [held.user for held in self.coupons if day_of(held.first_answer.issued_at_ms, zone) == today]
        if daily.max_coupons_per_user is not None and users.count(user) >= daily.max_coupons_per_user:
            return PerUserDailyLimit(until_tomorrow_ms(self.now_ms, zone))
        of_this_shard = self.limits.max_coupons_per_day
        if of_this_shard is not None and len(users) >= of_this_shard:
            return DailyLimit(until_tomorrow_ms(self.now_ms, zone))
        return None

    def _order_refusal(
        self, merchant: str, order: str, amount: int | None
    ) -> OrderAmountRequired | OrderTooSmall | PerOrderLimit | PerMerchantLimit | None:
        benefit, limits = self.campaign.benefit, self.campaign.holder_limits
        if isinstance(benefit, Percent) and amount is None:
            return OrderAmountRequired()
        if benefit.min_order_amount and (amount or 0) < benefit.min_order_amount:
            return OrderTooSmall(benefit.min_order_amount)
        taken = (CouponStatus.RESERVED, CouponStatus.REDEEMED)
        holders = [
            (held.redemption.merchant_id, held.redemption.order_id)
            for held in self.coupons
            if held.redemption is not None and self.status(held) in taken
        ]
        if limits and limits.per_order is not None and holders.count((merchant, order)) >= limits.per_order:
            return PerOrderLimit()
        of_this_shard = self.limits.max_redemptions_per_merchant
        # A reservation that has lapsed counts for its merchant until somebody touches the coupon.
        merchants = [held.redemption.merchant_id for held in self.coupons if held.redemption and held.written in taken]
        if of_this_shard is not None and merchants.count(merchant) >= of_this_shard:
            return PerMerchantLimit()
        return None

    def _lapsed(self, held: Held) -> bool:
        redemption = held.redemption
        return redemption is not None and (redemption.hold_expires_at_ms or 0) <= self.now_ms

    def _free(self, held: Held) -> None:
        assert held.redemption is not None
        held.redemption = replace(held.redemption, status=RedemptionStatus.RELEASED)


def _length_ms(duration: Duration) -> int:
    return duration.days * DAY_MS + duration.exact_ms
