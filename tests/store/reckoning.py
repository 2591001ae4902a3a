"""Why: a million refusals can only be checked against a model that counts, since `model.py` looks back at every coupon.

One shard with all of its buckets, in as many plain steps for each request however many went before. What it expects in
the store it says byte for byte. It knows no settling and no extensions: those are the other model's.
"""

import struct
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from service.domain.benefit import Amount
from service.domain.campaign import Campaign, CampaignStatus
from service.domain.coupon import CouponStatus, Redemption, RedemptionStatus
from service.domain.money import Rate
from service.domain.outcomes import (
    AlreadyRedeemed,
    BudgetExhausted,
    CampaignNotRunning,
    DailyLimit,
    Expired,
    Issued,
    IssueOutcome,
    NotYetValid,
    PerUserDailyLimit,
    PerUserLimit,
    RateLimited,
    Redeemed,
    RedeemOutcome,
    RedemptionReplayed,
    Replayed,
    ReservedElsewhere,
    SoldOut,
    UnknownCode,
)
from service.domain.validity import FixedValidity
from service.store.coupons import IssueRequest, RedeemRequest
from tests.store.model import MICRO
from tests.store.model_rules import day_of, discount

EPOCH = date(1970, 1, 1)
Hash = dict[bytes, bytes]


@dataclass
class Bucket:
    """What was left when a token was last taken, and when: nothing but the next taking may change that."""

    rate: Rate
    left: int | None = None
    at_ms: int = 0

    def level(self, now_ms: int) -> int:
        """Micro-tokens now."""
        full = self.rate.burst * MICRO
        passed_ms = max(0, now_ms - self.at_ms)
        return full if self.left is None else min(full, self.left + passed_ms * self.rate.per_second_milli)

    def take(self, now_ms: int) -> None:
        """Take a token."""
        self.left, self.at_ms = self.level(now_ms) - MICRO, max(now_ms, self.at_ms)

    def packed(self) -> bytes:
        """Level and time, 6 bytes each, or nothing if it was never charged."""
        return b"" if self.left is None else self.left.to_bytes(6, "big") + self.at_ms.to_bytes(6, "big")


@dataclass
class Claims:
    """What one user holds."""

    bucket: Bucket | None
    sequences: dict[bytes, int]

    def packed(self) -> bytes:
        """His bucket's level, then digest and sequence of each claim."""
        claims = [digest + sequence.to_bytes(5, "big") for digest, sequence in self.sequences.items()]
        return b"".join([self.bucket.packed() if self.bucket else b"", *claims])


@dataclass
class Given:
    """A coupon as it was last written."""

    user: str
    first_answer: Issued
    status: CouponStatus = CouponStatus.ISSUED
    redemption: Redemption | None = None

    @property
    def head(self) -> bytes:
        """How its record begins: status, extensions, attempts, times and user."""
        first = self.first_answer
        times = (first.issued_at_ms, first.starts_at_ms, first.expires_at_ms)
        attempts = self.redemption.attempt if self.redemption else 0
        opening = struct.pack(">BBH", list(CouponStatus).index(self.status) + 1, 0, attempts)
        return b"".join([opening, *(at_ms.to_bytes(6, "big") for at_ms in times), bytes([len(self.user)])]) + (
            self.user.encode()
        )


class Reckoning:
    """A campaign of one shard with a fixed expiry, whose coupons are worth an amount."""

    def __init__(self, campaign: Campaign, now_ms: int) -> None:
        assert isinstance(campaign.benefit, Amount)
        assert isinstance(campaign.validity, FixedValidity)
        self.campaign = campaign
        self.now_ms = now_ms
        self.coupons: list[Given] = []
        self._worth = campaign.benefit.amount
        self._expires_at_ms = campaign.validity.expires_at_ms
        self._zone = campaign.validity.timezone
        self._bucket = Bucket(campaign.issue_rate)
        self._users: dict[int, dict[str, Claims]] = defaultdict(dict)
        self._merchants: dict[str, Bucket] = {}
        self._written: Counter[CouponStatus] = Counter()
        self._day: tuple[date, int] | None = None

    def issue(self, request: IssueRequest) -> IssueOutcome:
        """A coupon for the user, or the one that this key got before."""
        rate, users = self.campaign.user_rate, self._users[request.user_bucket]
        claims = users.get(request.user_id) or Claims(Bucket(rate) if rate else None, {})
        if (claimed := claims.sequences.get(request.key_digest)) is not None:
            first = self.coupons[claimed].first_answer
            return Replayed(claimed, first.issued_at_ms, first.starts_at_ms, first.expires_at_ms)
        today, first_of_day = self._today()
        refused = self._refusal(claims, today, first_of_day)
        if refused is not None:
            return refused
        issued = Issued(len(self.coupons), self.now_ms, self.now_ms, self._expires_at_ms)
        self._day = today, first_of_day
        users[request.user_id] = claims
        claims.sequences[request.key_digest] = issued.sequence
        for bucket in filter(None, (claims.bucket, self._bucket)):
            bucket.take(self.now_ms)
        self.coupons.append(Given(request.user_id, issued))
        self._written[CouponStatus.ISSUED] += 1
        return issued

    def redeem(self, request: RedeemRequest) -> RedeemOutcome:
        """A redemption or a reservation for the merchant's order, or the one it has already."""
        if request.sequence >= len(self.coupons):
            return UnknownCode()
        coupon = self.coupons[request.sequence]
        before, starts_at_ms = coupon.redemption, coupon.first_answer.starts_at_ms
        if before is not None and (coupon.status is CouponStatus.REDEEMED or self._is_held(before)):
            if (before.merchant_id, before.order_id) == (request.merchant_id, request.order_id):
                return RedemptionReplayed(before)
            held_until_ms = before.hold_expires_at_ms
            return AlreadyRedeemed() if held_until_ms is None else ReservedElsewhere(held_until_ms - self.now_ms)
        if self.now_ms >= self._expires_at_ms:
            return Expired(self._expires_at_ms)
        if self.now_ms < starts_at_ms:
            return NotYetValid(starts_at_ms, self._expires_at_ms, starts_at_ms, starts_at_ms - self.now_ms)
        if self.campaign.merchant_rate is not None:
            bucket = self._merchants.setdefault(request.merchant_id, Bucket(self.campaign.merchant_rate))
            if (limited := self._limited_by("merchant", bucket)) is not None:
                return limited
            bucket.take(self.now_ms)
        hold = request.hold_ms > 0
        coupon.redemption = Redemption(
            0,
            request.sequence,
            before.attempt + 1 if before else 1,
            request.merchant_id,
            request.order_id,
            RedemptionStatus.RESERVED if hold else RedemptionStatus.COMMITTED,
            discount(self.campaign.benefit, None, request.order_amount),
            self.now_ms,
            self.now_ms + request.hold_ms if hold else None,
        )
        self._written[coupon.status] -= 1
        coupon.status = CouponStatus.RESERVED if hold else CouponStatus.REDEEMED
        self._written[coupon.status] += 1
        return Redeemed(coupon.redemption)

    def state(self) -> dict[str, int]:
        """The ledger, the campaign's bucket and its day; 0 is what was never written."""
        issued = len(self.coupons)
        figures = {status.value: self._written[status] for status in CouponStatus} | {
            "issued": issued,
            "outstanding": self._written[CouponStatus.ISSUED],
            "committed": issued * self._worth,
        }
        figures |= {"tokens": self._bucket.left or 0, "tokens_at": self._bucket.at_ms}
        day, first_of_day = (self.campaign.daily_limits and self._day) or (EPOCH, 0)
        figures |= {"day": (day - EPOCH).days, "day_first": first_of_day}
        return figures

    def users(self, bucket: int) -> Hash:
        """Each user of that bucket of users with all that he holds."""
        return {user.encode(): claims.packed() for user, claims in self._users[bucket].items()}

    def merchants(self) -> Hash:
        """Each merchant's bucket."""
        charged = {name: bucket for name, bucket in self._merchants.items() if bucket.left is not None}
        return {name.encode(): bucket.packed() for name, bucket in charged.items()}

    def _refusal(self, claims: Claims, today: date, first_of_day: int) -> IssueOutcome | None:
        campaign, issued = self.campaign, len(self.coupons)
        if self.now_ms >= self._expires_at_ms:
            return CampaignNotRunning(CampaignStatus.ENDED, None)
        if len(claims.sequences) >= campaign.max_coupons_per_user:
            return PerUserLimit()
        if issued >= campaign.max_coupons:
            return SoldOut()
        if campaign.budget is not None and (issued + 1) * self._worth > campaign.budget.amount:
            return BudgetExhausted()
        if (daily := campaign.daily_limits) is not None:
            his_today = sum(sequence >= first_of_day for sequence in claims.sequences.values())
            if daily.max_coupons_per_user is not None and his_today >= daily.max_coupons_per_user:
                return PerUserDailyLimit(self._until_after(today))
            if daily.max_coupons is not None and issued - first_of_day >= daily.max_coupons:
                return DailyLimit(self._until_after(today))
        for name, bucket in (("user", claims.bucket), ("campaign", self._bucket)):
            if bucket and (limited := self._limited_by(name, bucket)) is not None:
                return limited
        if (per_second_milli := campaign.redemptions_per_second_milli) is None:
            return None
        room = (self._expires_at_ms - self.now_ms) * per_second_milli
        out = self._written[CouponStatus.ISSUED] + self._written[CouponStatus.RESERVED]
        return self._limited("redemption", Rate(per_second_milli, room // MICRO), room - out * MICRO, self.now_ms)

    def _limited_by(self, name: str, bucket: Bucket) -> RateLimited | None:
        return self._limited(name, bucket.rate, bucket.level(self.now_ms), bucket.at_ms)

    def _limited(self, name: str, rate: Rate, level: int, at_ms: int) -> RateLimited | None:
        """After a step back of the clock nothing comes in before it is again when the last token was taken."""
        if level >= MICRO:
            return None
        wait_ms = max(0, at_ms - self.now_ms) - (level - MICRO) // rate.per_second_milli
        return RateLimited(name, rate.burst, rate.per_second_milli, wait_ms)

    def _today(self) -> tuple[date, int]:
        """The day, and the first sequence of it. A day that has begun does not end because a clock steps back."""
        today = day_of(self.now_ms, self._zone)
        return self._day if self._day is not None and self._day[0] >= today else (today, len(self.coupons))

    def _until_after(self, day: date) -> int:
        midnight = datetime.combine(day + timedelta(days=1), time(), ZoneInfo(self._zone))
        return round(midnight.timestamp() * 1000) - self.now_ms

    def _is_held(self, redemption: Redemption) -> bool:
        return redemption.hold_expires_at_ms is not None and redemption.hold_expires_at_ms > self.now_ms
