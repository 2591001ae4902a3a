"""Refusals: each outcome that is no success as the problem that the caller is told; the type checker misses none."""

import math
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, assert_never

from service.api.problems import Answer, Headers, not_found, problem, retry_after, stock_problem
from service.domain.money import Rate
from service.domain.outcomes import (
    AlreadyRedeemed,
    BudgetExhausted,
    CampaignNotRunning,
    CouponRefusal,
    DailyLimit,
    Deactivated,
    Expired,
    IssuancePaused,
    MerchantBusy,
    NotServed,
    NotYetValid,
    OrderAmountRequired,
    OrderTooSmall,
    Overloaded,
    PerMerchantLimit,
    PerOrderLimit,
    PerUserDailyLimit,
    PerUserLimit,
    QuotaTooHigh,
    RateLimited,
    Refusal,
    ReservedElsewhere,
    SoldOut,
    StoreUnavailable,
    TooManyAttempts,
    UnknownCampaign,
    UnknownCode,
    WrongRedemptionStatus,
)

PUBLIC_MESSAGE: Final = (
    "More people are here than we can serve at once. Nothing is lost: please come back in a moment. "
    "Coupons that you hold stay valid and can be used now."
)
RETRY_SPREAD_S: Final = 3
"""Callers who are told to come back after an overload are spread over this many seconds."""
PAUSE_SPREAD_S: Final = 30
"""Callers whom an operator's pause or a line sends away are spread over this many; the breaker tells each his place."""
LONGEST_WAIT_MS: Final = 3_600_000
"""Whoever would have to wait for longer than an hour is told the instant only: no program sleeps for that long."""
TOMORROW_SPREAD_S: Final = 60
"""Callers who are told to come back on the next day are spread over this many, so that midnight is no stampede."""
SAME_KEY: Final = "Repeat the request with the same key, and the same ticket if it had one: it counts once."
SAME_ORDER: Final = "Repeat the request with the same code and order: it counts once."
LOOK_FIRST: Final = "It is not known whether it was done: look before you repeat it."
"""What to do when the store gave no answer. Only issue reads a key, and only redeem counts once for an order."""
EMPTY_BUCKETS: Final = {
    "merchant": ("merchant_busy", "The merchant has more orders than he can serve. The coupon stays as it is."),
    "redemption": ("rate_limited", "Merchants can redeem no more coupons than are out before these expire."),
}
"""The `reason` and the words for buckets whose emptiness means more than too many requests."""


def issue_refusal(outcome: Refusal | NotServed) -> Answer:
    """Why no coupon was issued."""
    match outcome:
        case RateLimited():
            return _rate_limited(outcome)
        case PerUserLimit():
            return stock_problem("per_user_limit", "The user holds as many coupons of this campaign as one may.")
        case PerUserDailyLimit():
            detail = "The user got as many coupons of this campaign today as one may in a day."
            return _told_later(stock_problem("per_user_daily_limit", detail), _tomorrow(outcome))
        case DailyLimit():
            detail = "Every coupon that this campaign issues today has been issued."
            return _told_later(stock_problem("daily_limit", detail), _tomorrow(outcome))
        case SoldOut():
            return stock_problem("sold_out", "Every coupon of this campaign has been issued.")
        case BudgetExhausted():
            return stock_problem("budget_exhausted", "The money left does not cover another coupon.")
        case CampaignNotRunning(status, starts_in_ms):
            wait = () if starts_in_ms is None else retry_after(starts_in_ms / 1000)
            return problem("campaign_not_running", f"The campaign is {status}.", wait, campaign_status=status)
        case IssuancePaused():
            wait = retry_after(outcome.retry_after_s, 0 if outcome.by == "breaker" else PAUSE_SPREAD_S)
            return _told_later(stock_problem("issuance_paused", PUBLIC_MESSAGE, paused_by=outcome.by), wait)
        case UnknownCampaign():
            return not_found()
        case Overloaded() | StoreUnavailable():
            return not_served(outcome, SAME_KEY)
        case _:
            assert_never(outcome)


def redeem_refusal(outcome: CouponRefusal | NotServed) -> Answer:
    """Why a coupon was not redeemed."""
    match outcome:
        case AlreadyRedeemed():
            return problem("already_redeemed", "Another order has redeemed this coupon.")
        case ReservedElsewhere():
            wait = retry_after(outcome.retry_after_ms / 1000)
            return problem("reserved_elsewhere", "Another order holds this coupon and has not been paid yet.", wait)
        case NotYetValid():
            return _not_yet_valid(outcome)
        case Expired():
            expired_at = utc_text(outcome.expired_at_ms)
            return problem("expired", f"The coupon was valid until {expired_at}.", expired_at=expired_at)
        case Deactivated():
            return problem("deactivated", "This coupon was deactivated.")
        case OrderTooSmall():
            least = outcome.min_order_amount
            return problem("order_too_small", f"The order must amount to {least} at least.", min_order_amount=least)
        case OrderAmountRequired():
            return problem("order_amount_required", "The coupon takes a percentage off: say order_amount.")
        case PerOrderLimit():
            return problem("per_order_limit", "The order holds as many coupons of this campaign as one may.")
        case PerMerchantLimit():
            return problem("per_merchant_limit", "The merchant holds as many coupons of this campaign as one may.")
        case TooManyAttempts():
            return problem("too_many_attempts", "This coupon was reserved or redeemed and given back too often.")
        case UnknownCode():
            return not_found()
        case RateLimited():
            return _rate_limited(outcome)
        case MerchantBusy(retry_after_ms):
            detail = "The merchant has asked for a pause. The coupon stays as it is."
            wait = retry_after(retry_after_ms / 1000, RETRY_SPREAD_S)
            return problem("merchant_busy", detail, wait, retry_after_ms=retry_after_ms)
        case Overloaded() | StoreUnavailable():
            return not_served(outcome, SAME_ORDER)
        case _:
            assert_never(outcome)


def _not_yet_valid(outcome: NotYetValid) -> Answer:
    """Before a coupon's start, or when the campaign is closed: when it can be used, if it ever can."""
    starts_at = utc_text(outcome.starts_at_ms)
    if outcome.usable_at_ms is None or outcome.retry_after_ms is None:
        expires_at = utc_text(outcome.expires_at_ms)
        detail = f"The coupon cannot be used any more: its campaign stays closed until it expires at {expires_at}."
        return problem("not_yet_valid", detail, starts_at=starts_at, usable_at=None)
    usable_at = utc_text(outcome.usable_at_ms)
    wait = retry_after(outcome.retry_after_ms / 1000) if outcome.retry_after_ms <= LONGEST_WAIT_MS else ()
    detail = f"The coupon can be used from {usable_at} on."
    return problem("not_yet_valid", detail, wait, starts_at=starts_at, usable_at=usable_at)


def wrong_redemption_status(outcome: WrongRedemptionStatus) -> Answer:
    """Why a redemption was not committed, released or rolled back."""
    return problem("wrong_redemption_status", f"The redemption is {outcome.status}.", redemption_status=outcome.status)


def quota_too_high(outcome: QuotaTooHigh) -> Answer:
    """Why a user's quota was not raised."""
    most = outcome.max_quota
    return problem("quota_too_high", f"A user of this campaign may hold {most} coupons at most.", max_quota=most)


def _tomorrow(outcome: PerUserDailyLimit | DailyLimit) -> Headers:
    return retry_after(outcome.next_day_in_ms / 1000, TOMORROW_SPREAD_S)


def not_served(outcome: NotServed, when_unknown: str = LOOK_FIRST) -> Answer:
    """Why there is no outcome; `when_unknown` says what to do where nobody knows whether the store looked at it."""
    wait = retry_after(1, RETRY_SPREAD_S)
    match outcome:
        case Overloaded():
            return _told_later(stock_problem("overloaded", PUBLIC_MESSAGE), wait)
        case StoreUnavailable():
            return _told_later(stock_problem("store_unavailable", when_unknown), wait)
        case _:
            assert_never(outcome)


def utc_text(instant_ms: int) -> str:
    """The instant in RFC 3339, in UTC, to the millisecond."""
    return datetime.fromtimestamp(instant_ms / 1000, UTC).isoformat(timespec="milliseconds")


@lru_cache(maxsize=4096)
def _rate_limited(outcome: RateLimited) -> Answer:
    """All that one batch refuses are told the same."""
    rate = Rate(outcome.per_second_milli, outcome.burst)
    window_s = math.ceil(rate.burst * 1000 / rate.per_second_milli)
    reset_s = math.ceil(outcome.retry_after_ms / 1000)
    headers = (
        *retry_after(reset_s),
        (b"ratelimit-policy", f'"{outcome.bucket}";q={rate.burst};w={window_s}'.encode()),
        (b"ratelimit", f'"{outcome.bucket}";r=0;t={reset_s}'.encode()),
    )
    empty = ("rate_limited", f"The {outcome.bucket}'s requests come faster than its rate allows.")
    reason, detail = EMPTY_BUCKETS.get(outcome.bucket, empty)
    return problem(reason, detail, headers, bucket=outcome.bucket, retry_after_ms=outcome.retry_after_ms)


def _told_later(answer: Answer, wait: Headers) -> Answer:
    return Answer(answer.status, answer.body, answer.headers + wait, answer.media_type)
