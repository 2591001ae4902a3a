"""Problems as RFC 9457 has them, from one table of reasons; what an outcome of the store becomes is in `refusals`."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

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
    "cross_site": (403, "Another site's page sent that"),
    "cursor_expired": (410, "The events after that cursor are no longer here"),
    "daily_limit": (409, "All coupons of the day are issued"),
    "deactivated": (409, "The coupon was deactivated"),
    "expired": (410, "The coupon has expired"),
    "head_too_large": (431, "The request's head is too large"),
    "idempotency_key_required": (400, "An Idempotency-Key is required"),
    "if_match_required": (428, "An If-Match with the version is required"),
    "illegal_transition": (409, "The campaign's status does not allow that"),
    "imported_before": (409, "The campaign's codes were imported before"),
    "internal_error": (500, "Something went wrong here"),
    "invalid_request": (422, "The request is not well formed"),
    "issuance_paused": (503, "Issuance is paused"),
    "malformed_http": (400, "The request is no HTTP"),
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
def stock_problem(reason: str, detail: str, **members: str | int) -> Answer:
    """A problem that many are told in the same words, encoded once."""
    return problem(reason, detail, (), **members)


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
    return stock_problem("not_found", "Nothing is here under that name.")


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
        case "extra_forbidden" | "unexpected_keyword_argument":
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
