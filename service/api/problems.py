"""Refusals on the wire: each outcome that is no success, as an RFC 9457 problem, from one table."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, assert_never

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
MOST_ERRORS: Final = 20
LONGEST_FIELD: Final = 100

JSON: Final = b"application/json"
PROBLEM_JSON: Final = b"application/problem+json"

Headers = tuple[tuple[bytes, bytes], ...]

PROBLEMS: Final = {
    "already_redeemed": (409, "The coupon was redeemed before"),
    "body_too_large": (413, "The body is too large"),
    "budget_below_committed": (409, "More money is committed already"),
    "budget_exhausted": (409, "The campaign's budget is spent"),
    "campaign_exists": (409, "A campaign has that id"),
    "campaign_not_running": (409, "The campaign issues no coupons now"),
    "code_prefix_taken": (409, "Another campaign's codes begin with that prefix"),
    "codes_are_computed": (409, "The campaign's codes are computed"),
    "cursor_expired": (410, "The events after that cursor are no longer here"),
    "daily_limit": (409, "All coupons of the day are issued"),
    "deactivated": (409, "The coupon was deactivated"),
    "expired": (410, "The coupon has expired"),
    "idempotency_key_required": (400, "An Idempotency-Key is required"),
    "if_match_required": (428, "An If-Match with the version is required"),
    "illegal_transition": (409, "The campaign's status does not allow that"),
    "imported_before": (409, "The campaign's codes were imported before"),
    "internal_error": (500, "Something went wrong here"),
    "invalid_request": (422, "The request is not well formed"),
    "issuance_paused": (503, "Issuance is paused"),
    "max_coupons_below_issued": (409, "More coupons are issued already"),
    "merchant_busy": (429, "The merchant is too busy"),
    "method_not_allowed": (405, "That method is not allowed here"),
    "not_found": (404, "There is no such thing"),
    "not_ready": (503, "Not ready to serve"),
    "not_served_here": (421, "Another process serves that"),
    "not_yet_valid": (409, "The coupon cannot be used now"),
    "order_amount_required": (422, "The order's amount is required"),
    "order_too_small": (409, "The order is too small for the coupon"),
    "outage_overlaps": (409, "Part of that time is recorded already"),
    "overloaded": (503, "Too many requests are waiting"),
    "per_merchant_limit": (409, "The merchant has as many coupons as one may"),
    "per_order_limit": (409, "The order has as many coupons as one may"),
    "per_user_daily_limit": (409, "The user got as many coupons as one may in a day"),
    "per_user_limit": (409, "The user has as many coupons as one may"),
    "quota_too_high": (409, "The campaign lets no quota be raised so far"),
    "rate_limited": (429, "Too many requests at once"),
    "reserved_elsewhere": (409, "Another order holds the coupon"),
    "sent_too_slowly": (408, "The file took too long to arrive"),
    "sold_out": (409, "All coupons are issued"),
    "store_unavailable": (503, "The store does not answer"),
    "ticket_expired": (410, "The place in line was given on"),
    "ticket_invalid": (400, "That is no ticket"),
    "ticket_not_due": (503, "The place in line has not been called yet"),
    "ticket_not_yours": (403, "The ticket was taken for somebody else"),
    "too_many_attempts": (409, "The coupon was given back too often"),
    "too_many_breakers": (409, "As many campaigns as may have a breaker of their own have one"),
    "too_many_busy_merchants": (409, "As many merchants are busy as may be"),
    "too_many_campaigns": (409, "There are as many campaigns as there may be"),
    "too_many_exports": (503, "Too many exports are under way"),
    "too_many_extensions": (409, "The campaign was extended as often as it may be"),
    "too_many_jobs": (503, "Too many long jobs wait or run"),
    "too_many_listeners": (503, "As many listen as may"),
    "too_many_outages": (409, "There are as many outages as there may be"),
    "too_many_webhooks": (409, "There are as many webhooks as there may be"),
    "unauthorized": (401, "An API key is required"),
    "undo_window_over": (409, "It is too late to undo the extension"),
    "version_stale": (412, "The campaign has changed meanwhile"),
    "waiting_room_full": (503, "The waiting room is full"),
    "wrong_redemption_status": (409, "The redemption's status does not allow that"),
}
"""Every `reason` with its status and title; the type is `/problems/` and the reason with dashes."""
EMPTY_BUCKETS: Final = {
    "merchant": ("merchant_busy", "The merchant has more orders than he can serve. The coupon stays as it is."),
    "redemption": ("rate_limited", "Merchants can redeem no more coupons than are out before these expire."),
}
"""The `reason` and the words for buckets whose emptiness means more than too many requests."""


@dataclass(slots=True)
class Answer:
    """A whole HTTP answer; `headers` are those beside the body's own. Not frozen: one is made for each request."""

    status: int
    body: bytes
    headers: Headers = ()
    media_type: bytes = JSON


class Refused(Exception):
    """Carries a problem out of a handler of the FastAPI lane."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def problem(reason: str, detail: str, headers: Headers = (), **members: Any) -> Answer:
    """The problem with that `reason`; `members` are added to it by name."""
    status, title = PROBLEMS[reason]
    body = {
        "type": f"/problems/{reason.replace('_', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "reason": reason,
    }
    return json_answer(status, body | members, headers, PROBLEM_JSON)


@lru_cache(maxsize=4096)
def _stock(reason: str, detail: str, **members: str | int) -> Answer:
    """A problem that many are told in the same words, encoded once."""
    return problem(reason, detail, (), **members)


def _told_later(answer: Answer, wait: Headers) -> Answer:
    return Answer(answer.status, answer.body, answer.headers + wait, answer.media_type)


def json_answer(status: int, body: object, headers: Headers = (), media_type: bytes = JSON) -> Answer:
    """An answer that is compact JSON."""
    return Answer(status, json.dumps(body, separators=(",", ":")).encode(), headers, media_type)


def headers_of(answer: Answer) -> Headers:
    """All headers of the answer, those that describe its body first."""
    return (
        (b"content-type", answer.media_type),
        (b"content-length", b"%d" % len(answer.body)),
        *answer.headers,
    )


def internal_error() -> Answer:
    """The answer when something broke here."""
    return problem("internal_error", "The error has been logged under this answer's X-Request-Id.")


def not_found() -> Answer:
    """The one answer for all that does not exist, so that a guessed code learns nothing."""
    return _stock("not_found", "Nothing is here under that name.")


def invalid(errors: Sequence[Any]) -> Answer:
    """A malformed request, from pydantic's errors: which field and why, without repeating what was sent."""
    fields = [_invalid_field(error) for error in errors[:MOST_ERRORS]]
    first = fields[0]
    return problem("invalid_request", f"{first['field']}: {first['message']}", errors=fields)


def _invalid_field(error: Any) -> dict[str, str]:
    if error.get("type") == "json_invalid":
        return {"field": "body", "message": f"not JSON: {error['ctx']['error']}"}
    parts = [str(part) for part in error["loc"] if part != "body"]
    if parts[:1] == ["benefit"]:
        # Pydantic puts the kind of benefit that it took into the path.
        del parts[1:2]
    message: str = error["msg"]
    match error.get("type"):
        case "extra_forbidden":
            message = "unknown field"
        case "union_tag_invalid":
            parts.append("kind")
            message = f"must be one of {error['ctx']['expected_tags']}"
        case "union_tag_not_found":
            parts.append("kind")
            message = "Field required"
    return {"field": ".".join(parts)[:LONGEST_FIELD] or "body", "message": message.removeprefix("Value error, ")}


def retry_after(seconds: float, spread_s: int = 0) -> Headers:
    """`Retry-After` in whole seconds, at least one, spread at random so that callers do not return as a herd."""
    return ((b"retry-after", b"%d" % (max(1, math.ceil(seconds)) + int(random.random() * (spread_s + 1)))),)


def issue_refusal(outcome: Refusal | NotServed) -> Answer:
    """Why no coupon was issued."""
    match outcome:
        case RateLimited():
            return _rate_limited(outcome)
        case PerUserLimit():
            return _stock("per_user_limit", "The user holds as many coupons of this campaign as one may.")
        case PerUserDailyLimit():
            detail = "The user got as many coupons of this campaign today as one may in a day."
            return _told_later(_stock("per_user_daily_limit", detail), _tomorrow(outcome))
        case DailyLimit():
            detail = "Every coupon that this campaign issues today has been issued."
            return _told_later(_stock("daily_limit", detail), _tomorrow(outcome))
        case SoldOut():
            return _stock("sold_out", "Every coupon of this campaign has been issued.")
        case BudgetExhausted():
            return _stock("budget_exhausted", "The money left does not cover another coupon.")
        case CampaignNotRunning(status, starts_in_ms):
            wait = () if starts_in_ms is None else retry_after(starts_in_ms / 1000)
            return problem("campaign_not_running", f"The campaign is {status}.", wait, campaign_status=status)
        case IssuancePaused():
            wait = retry_after(outcome.retry_after_s, 0 if outcome.by == "breaker" else PAUSE_SPREAD_S)
            return _told_later(_stock("issuance_paused", PUBLIC_MESSAGE, paused_by=outcome.by), wait)
        case UnknownCampaign():
            return not_found()
        case Overloaded() | StoreUnavailable():
            return not_served(outcome)
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
            return not_served(outcome)
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


def not_served(outcome: NotServed) -> Answer:
    """Why nobody looked at the request; repeating it is safe."""
    wait = retry_after(1, RETRY_SPREAD_S)
    match outcome:
        case Overloaded():
            return _told_later(_stock("overloaded", PUBLIC_MESSAGE), wait)
        case StoreUnavailable():
            detail = "Repeat the request with the same key: it counts once."
            return _told_later(_stock("store_unavailable", detail), wait)
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
    empty = ("rate_limited", f"The {outcome.bucket}'s token bucket is empty.")
    reason, detail = EMPTY_BUCKETS.get(outcome.bucket, empty)
    return problem(reason, detail, headers, bucket=outcome.bucket, retry_after_ms=outcome.retry_after_ms)
