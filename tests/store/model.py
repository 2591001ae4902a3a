"""Why: what the store must do, said a second time and as plainly as possible, so that the two can be compared.

One shard, no batches, no packing, no chunks. A coupon has the status that was last written and the one that holds by
the clock; the ledger counts the former, everybody is answered by the latter.
"""

from dataclasses import dataclass, replace

from service.domain.campaign import Campaign, CampaignStatus
from service.domain.coupon import Counters, Coupon, CouponStatus, Redemption, RedemptionStatus
from service.domain.money import Rate
from service.domain.outcomes import (
    AlreadyRedeemed,
    BudgetExhausted,
    CampaignNotRunning,
    CouponDeactivated,
    Deactivated,
    DeactivateOutcome,
    Expired,
    IssuancePaused,
    Issued,
    IssueOutcome,
    NotYetValid,
    PerUserLimit,
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
    extensions_before: int
    written: CouponStatus = CouponStatus.ISSUED
    attempts: int = 0
    redemption: Redemption | None = None


class Model:
    """A campaign of one shard in one currency, without minimum order amounts. Its methods mirror the store's verbs."""

    def __init__(self, campaign: Campaign, now_ms: int) -> None:
        self.campaign = campaign
        self.now_ms = now_ms
        self.coupons: list[Held] = []
        self.extensions: list[tuple[int, int]] = []
        self._claims: dict[tuple[str, str], int] = {}
        self._buckets: dict[tuple[str, str], Bucket] = {}

    def counters(self) -> Counters:
        """The ledger, counted from what was last written."""
        written = [held.written for held in self.coupons]
        counts = {status: written.count(status) for status in CouponStatus}
        live = len(written) - counts[CouponStatus.EXPIRED] - counts[CouponStatus.DEACTIVATED]
        return Counters(
            len(written),
            counts[CouponStatus.ISSUED],
            counts[CouponStatus.RESERVED],
            counts[CouponStatus.REDEEMED],
            counts[CouponStatus.EXPIRED],
            counts[CouponStatus.DEACTIVATED],
            live * self.campaign.benefit.amount,
        )

    def expires_at(self, held: Held, made: int | None = None) -> int:
        """When the coupon's validity is over, after the first `made` extensions."""
        expires_at_ms = held.first_answer.expires_at_ms
        for made_at_ms, until_ms in self.extensions[held.extensions_before : made]:
            if made_at_ms < expires_at_ms < until_ms:
                expires_at_ms = until_ms
        return expires_at_ms

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
        return Coupon(0, sequence, held.user, status, first.issued_at_ms, first.starts_at_ms, expires_at_ms)

    def issue(self, user: str, key: str) -> IssueOutcome:
        """A coupon for the user, or the one that this key got before."""
        if (claimed := self._claims.get((user, key))) is not None:
            first = self.coupons[claimed].first_answer
            return Replayed(claimed, first.issued_at_ms, first.starts_at_ms, first.expires_at_ms)
        starts_at_ms, expires_at_ms = self._window(len(self.coupons))
        wanted = {("user", user): self.campaign.user_rate, ("campaign", ""): self.campaign.issue_rate}
        if self.campaign.status is CampaignStatus.PAUSED:
            return IssuancePaused("operator", 30)
        if expires_at_ms <= self.now_ms:
            return CampaignNotRunning(CampaignStatus.ENDED, None)
        if sum(held.user == user for held in self.coupons) >= self.campaign.max_coupons_per_user:
            return PerUserLimit()
        if len(self.coupons) >= self.campaign.max_coupons:
            return SoldOut()
        amount, budget = self.campaign.benefit.amount, self.campaign.budget
        if budget is not None and self.counters().budget_committed + amount > budget.amount:
            return BudgetExhausted()
        if (limited := self._charge(wanted)) is not None:
            return limited
        issued = Issued(len(self.coupons), self.now_ms, starts_at_ms, expires_at_ms)
        self._claims[user, key] = issued.sequence
        self.coupons.append(Held(issued, user, len(self.extensions)))
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
        if (limited := self._charge({("merchant", merchant): self.campaign.merchant_rate})) is not None:
            return limited
        held.attempts += 1
        held.redemption = Redemption(
            0,
            sequence,
            held.attempts,
            merchant,
            order,
            RedemptionStatus.RESERVED if hold_ms else RedemptionStatus.COMMITTED,
            self.campaign.benefit.discount(amount),
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
        """Take a free coupon out of use."""
        if sequence >= len(self.coupons):
            return UnknownCode()
        held = self.coupons[sequence]
        match self.status(held):
            case CouponStatus.REDEEMED:
                return AlreadyRedeemed()
            case CouponStatus.EXPIRED:
                return Expired(self.expires_at(held))
            case CouponStatus.RESERVED:
                assert held.redemption is not None
                return ReservedElsewhere((held.redemption.hold_expires_at_ms or 0) - self.now_ms)
        if held.written is CouponStatus.RESERVED:
            self._free(held)
        held.written = CouponStatus.DEACTIVATED
        return CouponDeactivated(self.coupon(sequence))

    def change(self, campaign: Campaign) -> CapBelowIssued | None:
        """Let the campaign be as given, unless it promises less than was given out."""
        budget, committed = campaign.budget, self.counters().budget_committed
        if self.campaign.max_coupons > campaign.max_coupons < len(self.coupons):
            return CapBelowIssued("max_coupons", len(self.coupons))
        old_budget = self.campaign.budget
        if budget and budget.amount < committed and (old_budget is None or budget.amount < old_budget.amount):
            return CapBelowIssued("budget", committed)
        self.campaign = campaign
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

    def lifted(self, number: int, sequence: int) -> bool:
        """Whether that extension makes the coupon valid for longer."""
        held = self.coupons[sequence]
        if number <= held.extensions_before or held.written not in LIVE:
            return False
        return self.expires_at(held, number) > self.expires_at(held, number - 1)

    def _window(self, sequence: int) -> tuple[int, int]:
        validity = self.campaign.validity
        if isinstance(validity, FixedValidity):
            expires_at_ms = self.expires_at(Held(Issued(0, 0, 0, validity.expires_at_ms), "", 0))
            return max(self.now_ms, validity.starts_at_ms or 0), expires_at_ms
        first_ms, waves = self.now_ms + _length_ms(validity.wait), validity.waves
        wave, last = (sequence % waves.count, waves.count - 1) if waves else (0, 0)
        step_ms = _length_ms(waves.every) if waves else 0
        return first_ms + wave * step_ms, first_ms + last * step_ms + _length_ms(validity.duration)

    def _charge(self, wanted: dict[tuple[str, str], Rate | None]) -> RateLimited | None:
        rates = {name: rate for name, rate in wanted.items() if rate is not None}
        for name, rate in rates.items():
            bucket = self._buckets.setdefault(name, Bucket(name[0], rate.burst * MICRO, self.now_ms))
            if (limited := bucket.refusal(rate, self.now_ms)) is not None:
                return limited
        for name in rates:
            self._buckets[name].level -= MICRO
        return None

    def _lapsed(self, held: Held) -> bool:
        redemption = held.redemption
        return redemption is not None and (redemption.hold_expires_at_ms or 0) <= self.now_ms

    def _free(self, held: Held) -> None:
        assert held.redemption is not None
        held.redemption = replace(held.redemption, status=RedemptionStatus.RELEASED)


def _length_ms(duration: Duration) -> int:
    return duration.days * DAY_MS + duration.exact_ms
