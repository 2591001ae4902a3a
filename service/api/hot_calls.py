"""Issue and redeem, from bytes to bytes: the two calls that everybody makes in the same minute.

Both lanes end here, so they cannot differ: the fast lane at ASGI level, and the FastAPI lane that declares them.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

from pydantic import TypeAdapter, ValidationError

from service.api.parts import Parts
from service.api.problems import (
    Answer,
    entity_headers,
    invalid,
    issue_refusal,
    not_found,
    problem,
    redeem_refusal,
)
from service.api.wire import IssueBody, RedeemBody
from service.domain.codes import split_code
from service.domain.coupon import DEFAULT_HOLD_MS
from service.domain.outcomes import (
    IssuancePaused,
    Issued,
    Overloaded,
    Redeemed,
    RedemptionReplayed,
    Replayed,
    StoreUnavailable,
    UnknownCode,
)
from service.domain.validity import DAY_MS, Duration
from service.store.coupons import IssueRequest, RedeemRequest
from service.store.scripts import StoreError

MAX_KEY_BYTES: Final = 255
DIGEST_BYTES: Final = 8
REPLAYED: Final = ((b"idempotency-replayed", b"true"),)

_ISSUE_BODY: Final = TypeAdapter(IssueBody)
_REDEEM_BODY: Final = TypeAdapter(RedeemBody)

Head = Iterable[tuple[bytes, bytes]]


async def issue(parts: Parts, campaign_id: str, head: Head, body: bytes) -> Answer:
    """Issue one coupon of the campaign to the user in the body, once for each idempotency key of his."""
    key = _idempotency_key(head)
    if not key or len(key) > MAX_KEY_BYTES:
        return problem(
            "idempotency_key_required",
            f"Send an Idempotency-Key header of 1 to {MAX_KEY_BYTES} characters, the same when you repeat a request.",
        )
    try:
        user_id = _ISSUE_BODY.validate_json(body).user_id
    except ValidationError as error:
        return invalid(error.errors(include_url=False, include_input=False))
    if not parts.breaker.admits_user(user_id):
        return _paused(parts, campaign_id, user_id)
    try:
        known = parts.catalogue.known(campaign_id) or await parts.catalogue.find(campaign_id)
    except StoreError:
        return issue_refusal(StoreUnavailable())
    if known is None:
        return not_found()
    shard, bucket = known.place(user_id)
    digest = blake2b(key, digest_size=DIGEST_BYTES).digest()
    outcome = await parts.issuing.submit(known, shard, IssueRequest(user_id, bucket, digest))
    match outcome:
        case Issued(sequence, issued_at_ms, starts_at_ms, expires_at_ms):
            times = (issued_at_ms, starts_at_ms, expires_at_ms)
            return _created(parts.spelling(known).written(shard, sequence, user_id, "issued", *times))
        case Replayed(sequence, issued_at_ms, starts_at_ms, expires_at_ms):
            times = (issued_at_ms, starts_at_ms, expires_at_ms)
            return _created(parts.spelling(known).written(shard, sequence, user_id, "issued", *times), replayed=True)
        case Overloaded() | StoreUnavailable():
            parts.metrics.count_unserved("issue", known, outcome)
            return issue_refusal(outcome)
        case _:
            return issue_refusal(outcome)


def refused_unread(parts: Parts, campaign_id: str) -> Answer | None:
    """The answer to everybody while the breaker is open, before a body is read; None while it lets anyone in."""
    return _paused(parts, campaign_id, None) if parts.breaker.share_permille == 0 else None


async def redeem(parts: Parts, code: str, body: bytes) -> Answer:
    """Redeem or reserve the coupon for the merchant's order in the body."""
    try:
        request = _REDEEM_BODY.validate_json(body)
    except ValidationError as error:
        return invalid(error.errors(include_url=False, include_input=False))
    split = split_code(code)
    if split is None:
        return not_found()
    prefix, sealed = split
    try:
        known = await parts.catalogue.find_by_prefix(prefix)
    except StoreError:
        return redeem_refusal(StoreUnavailable())
    address = None if known is None else known.codes.read_code(sealed)
    if known is None or address is None:
        return redeem_refusal(UnknownCode())
    outcome = await parts.redeeming.submit(
        known,
        address.shard,
        RedeemRequest(address.sequence, request.merchant_id, request.order_id, request.order_amount, _hold_ms(request)),
    )
    match outcome:
        case Redeemed(redemption):
            return _created(parts.spelling(known).redemption(redemption))
        case RedemptionReplayed(redemption):
            return _created(parts.spelling(known).redemption(redemption), replayed=True)
        case Overloaded() | StoreUnavailable():
            parts.metrics.count_unserved("redeem", known, outcome)
            return redeem_refusal(outcome)
        case _:
            return redeem_refusal(outcome)


def _idempotency_key(head: Head) -> bytes:
    for name, value in head:
        if name == b"idempotency-key":
            return value
    return b""


def _paused(parts: Parts, campaign_id: str, user_id: str | None) -> Answer:
    outcome = IssuancePaused("breaker", parts.breaker.retry_after_s(user_id))
    parts.metrics.count_unserved("issue", parts.catalogue.known(campaign_id), outcome)
    return issue_refusal(outcome)


def _created(body: bytes, replayed: bool = False) -> Answer:
    return Answer(201, entity_headers(body) + REPLAYED if replayed else entity_headers(body), body)


def _hold_ms(request: RedeemBody) -> int:
    if not request.hold:
        return 0
    if request.hold_for is None:
        return DEFAULT_HOLD_MS
    duration = Duration.parse(request.hold_for)
    return duration.days * DAY_MS + duration.exact_ms
