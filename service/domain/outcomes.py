"""What can come of issuing or redeeming: one closed union a verb.

The HTTP answer, the metric label and the log line are each a projection of these, so a new outcome is added here and
the type checker names every place that must learn of it.
"""

from dataclasses import dataclass

from service.domain.campaign import CampaignStatus
from service.domain.coupon import Coupon, Redemption


@dataclass(slots=True)
class Issued:
    """A coupon was issued, and is on disk.

    Not frozen, like all outcomes that carry a coupon: one is made for each request, and freezing is dear.
    """

    sequence: int
    issued_at_ms: int
    starts_at_ms: int
    expires_at_ms: int
    drawn_amount: int | None = None


@dataclass(slots=True)
class Replayed:
    """The same user and key had been issued this coupon before; times are those of the first answer."""

    sequence: int
    issued_at_ms: int
    starts_at_ms: int
    expires_at_ms: int
    drawn_amount: int | None = None


@dataclass(frozen=True, slots=True)
class RateLimited:
    """A token bucket (`campaign`, `user`, `merchant` or `redemption`) has no token; one comes in `retry_after_ms`.

    The level of `redemption` is what the merchants can still redeem, beyond the coupons that are out, before these
    expire: it rises by redemptions, and `retry_after_ms` is how long merchants take over the surplus.
    """

    bucket: str
    burst: int
    per_second_milli: int
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class PerUserLimit:
    """The user holds as many of the campaign's coupons as one may."""


@dataclass(frozen=True, slots=True)
class PerUserDailyLimit:
    """The user has got as many coupons as one may in a day; the next begins in `next_day_in_ms`."""

    next_day_in_ms: int


@dataclass(frozen=True, slots=True)
class DailyLimit:
    """Every coupon of the day has been issued; the next day begins in `next_day_in_ms`."""

    next_day_in_ms: int


@dataclass(frozen=True, slots=True)
class SoldOut:
    """Every coupon of the campaign has been issued."""


@dataclass(frozen=True, slots=True)
class BudgetExhausted:
    """The money left does not cover another coupon."""


@dataclass(frozen=True, slots=True)
class CampaignNotRunning:
    """The campaign issues nothing now; `starts_in_ms` is None unless it will."""

    status: CampaignStatus
    starts_in_ms: int | None


@dataclass(frozen=True, slots=True)
class IssuancePaused:
    """The operator (`operator`) or the breaker (`breaker`) has paused issuance, or a line waits (`waiting_room`)."""

    by: str
    retry_after_s: int


@dataclass(frozen=True, slots=True)
class Overloaded:
    """The bounded list of waiting requests is full."""


@dataclass(frozen=True, slots=True)
class StoreUnavailable:
    """The store gave no answer: what became of the request is unknown. Its key, or its order, lets it count once."""


@dataclass(frozen=True, slots=True)
class UnknownCampaign:
    """No campaign has that id."""


Refusal = (
    RateLimited
    | PerUserLimit
    | PerUserDailyLimit
    | DailyLimit
    | SoldOut
    | BudgetExhausted
    | CampaignNotRunning
    | IssuancePaused
    | UnknownCampaign
)
NotServed = Overloaded | StoreUnavailable
IssueOutcome = Issued | Replayed | Refusal | NotServed


@dataclass(slots=True)
class Redeemed:
    """The coupon was redeemed, or reserved where the request asked to hold it."""

    redemption: Redemption


@dataclass(slots=True)
class RedemptionReplayed:
    """The same merchant's same order holds this redemption already."""

    redemption: Redemption


@dataclass(frozen=True, slots=True)
class AlreadyRedeemed:
    """Another order has redeemed the coupon."""


@dataclass(frozen=True, slots=True)
class ReservedElsewhere:
    """Another order holds the coupon; `retry_after_ms` is when that reservation lapses at the latest."""

    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class NotYetValid:
    """The coupon's validity begins later, or the campaign is closed at this hour.

    It can be used from `usable_at_ms` on, in `retry_after_ms`; both are None if that is not before it expires.
    """

    starts_at_ms: int
    expires_at_ms: int
    usable_at_ms: int | None
    retry_after_ms: int | None


@dataclass(frozen=True, slots=True)
class Expired:
    """The coupon's validity is over."""

    expired_at_ms: int


@dataclass(frozen=True, slots=True)
class Deactivated:
    """The coupon was deactivated."""


@dataclass(frozen=True, slots=True)
class OrderTooSmall:
    """The order stays below what the benefit asks for."""

    min_order_amount: int


@dataclass(frozen=True, slots=True)
class OrderAmountRequired:
    """The benefit is a percentage of the order, whose amount was not told."""


@dataclass(frozen=True, slots=True)
class PerOrderLimit:
    """The order holds as many of the campaign's coupons as one may."""


@dataclass(frozen=True, slots=True)
class PerMerchantLimit:
    """The merchant holds as many of the campaign's coupons as one may."""


@dataclass(frozen=True, slots=True)
class TooManyAttempts:
    """The coupon was reserved and given back more often than one may."""


@dataclass(frozen=True, slots=True)
class MerchantBusy:
    """The merchant has asked to be left in peace for `retry_after_ms` more."""

    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class UnknownCode:
    """No such coupon or redemption: forged, mistyped, or never given out."""


@dataclass(frozen=True, slots=True)
class WrongRedemptionStatus:
    """The redemption's status (or `superseded`, when a later attempt took its place) does not allow that."""

    status: str


CouponRefusal = (
    AlreadyRedeemed
    | ReservedElsewhere
    | NotYetValid
    | Expired
    | Deactivated
    | OrderTooSmall
    | OrderAmountRequired
    | PerOrderLimit
    | PerMerchantLimit
    | TooManyAttempts
    | UnknownCode
    | RateLimited
    | MerchantBusy
)
RedeemOutcome = Redeemed | RedemptionReplayed | CouponRefusal | NotServed
SettleOutcome = Redeemed | RedemptionReplayed | WrongRedemptionStatus | UnknownCode | NotServed


@dataclass(frozen=True, slots=True)
class CouponDeactivated:
    """The coupon is deactivated, now or already before."""

    coupon: Coupon


DeactivateOutcome = CouponDeactivated | AlreadyRedeemed | ReservedElsewhere | Expired | UnknownCode


@dataclass(frozen=True, slots=True)
class QuotaRaised:
    """The user may hold `max_coupons` coupons: what was asked for, or more that he had already."""

    max_coupons: int


@dataclass(frozen=True, slots=True)
class QuotaTooHigh:
    """The campaign lets no quota be raised above `max_quota`."""

    max_quota: int


QuotaOutcome = QuotaRaised | QuotaTooHigh | UnknownCampaign
