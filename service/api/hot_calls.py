"""Issue and redeem, from bytes to bytes: the two calls that everybody makes in the same minute.

Both lanes go through these steps, so they cannot differ: read what is wanted, wait for the store, spell the outcome.
"""

from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from pydantic import TypeAdapter, ValidationError

from service.api.admission import admit, ask_again_in_s
from service.api.metrics import Whom
from service.api.parts import Parts
from service.api.problems import Answer, invalid, not_found, problem
from service.api.refusals import issue_refusal, redeem_refusal
from service.api.wire import IssueBody, RedeemBody
from service.domain.coupon import DEFAULT_HOLD_MS
from service.domain.outcomes import (
    IssuancePaused,
    Issued,
    IssueOutcome,
    NotServed,
    Overloaded,
    Redeemed,
    RedeemOutcome,
    RedemptionReplayed,
    Replayed,
    StoreUnavailable,
    UnknownCode,
)
from service.domain.validity import DAY_MS, Duration
from service.gate.group_commit import OVERLOADED
from service.store.catalogue import KnownCampaign
from service.store.coupons import IssueRequest, RedeemRequest
from service.store.scripts import StoreError

MAX_KEY_BYTES: Final = 255
DIGEST_BYTES: Final = 8
TICKET: Final = b"tidegate-ticket"
REPLAYED: Final = ((b"idempotency-replayed", b"true"),)

_ISSUE_BODY: Final = TypeAdapter(IssueBody).validator
_REDEEM_BODY: Final = TypeAdapter(RedeemBody).validator


async def issue(parts: Parts, campaign_id: str, key: bytes, body: bytes, ticket: bytes = b"") -> Answer:
    """Issue one coupon of the campaign to the user in the body, once for each idempotency key or ticket of his."""
    in_line = bool(ticket) or campaign_id in parts.waiting_rooms.lines
    wish = read_wish(key, body) if in_line else read_issue(parts, campaign_id, key, body)
    if isinstance(wish, Answer):
        return wish
    whom: Whom = "ticket_holder" if ticket else "newcomer"
    try:
        known = parts.catalogue.known(campaign_id) or await parts.catalogue.find(campaign_id)
    except StoreError:
        return _issue_unserved(parts, None, StoreUnavailable(), whom)
    if known is None:
        return not_found()
    shard, request = placed(known, wish)
    called = None
    if in_line:
        admitted = await admit(parts, known, request.user_id, ticket, request.key_digest)
        if isinstance(admitted, NotServed):
            return _issue_unserved(parts, known, admitted, whom)
        if isinstance(admitted, Answer):
            return admitted
        request, called = replace(request, key_digest=admitted.claim), admitted.called
    outcome = await parts.issuing.submit(known, shard, request)
    if called is not None and isinstance(outcome, Issued):
        # A place is used up by its coupon alone: who was refused comes again, who is told again used it before.
        parts.waiting_rooms.note_pass(campaign_id, called)
    return issue_answer(parts, known, shard, request, outcome, whom)


def refused_unread(parts: Parts, campaign_id: str, ticket: bytes = b"") -> Answer | None:
    """The answer, before a body is read, to everybody while a breaker is open, and to newcomers in an overload."""
    if parts.breaker.refuses_everybody(campaign_id):
        return paused(parts, campaign_id, ticket=ticket)
    return None if ticket else shed_unread(parts, campaign_id)


def shed_unread(parts: Parts, campaign_id: str) -> Answer | None:
    """The answer to a newcomer, before his body is read, while the places left are kept for those who waited before."""
    if parts.issuing.is_nearly_full or parts.breaker.sheds_newcomers:
        return _issue_unserved(parts, parts.catalogue.known(campaign_id), OVERLOADED, "newcomer")
    return None


def read_issue(parts: Parts, campaign_id: str, key: bytes, body: bytes) -> tuple[str, bytes] | Answer:
    """Who wants a coupon under which idempotency key, or why he gets none, where nobody waits in line."""
    wish = read_wish(key, body)
    if not isinstance(wish, Answer) and not parts.breaker.admits(campaign_id, wish[0]):
        return paused(parts, campaign_id, wish[0])
    return wish


def read_wish(key: bytes, body: bytes) -> tuple[str, bytes] | Answer:
    """Who wants a coupon under which idempotency key, or what is wrong with the request."""
    if not key or len(key) > MAX_KEY_BYTES:
        return problem(
            "idempotency_key_required",
            f"Send an Idempotency-Key header of 1 to {MAX_KEY_BYTES} characters, the same when you repeat a request.",
        )
    try:
        user_id = _ISSUE_BODY.validate_json(body).user_id
    except ValidationError as error:
        return invalid(error.errors(include_url=False, include_input=False))
    return user_id, key


def placed(known: KnownCampaign, wish: tuple[str, bytes]) -> tuple[int, IssueRequest]:
    """The user's shard, and the request to it."""
    user_id, key = wish
    shard, bucket = known.place(user_id)
    return shard, IssueRequest(user_id, bucket, blake2b(key, digest_size=DIGEST_BYTES).digest())


def issue_answer(
    parts: Parts,
    known: KnownCampaign,
    shard: int,
    request: IssueRequest,
    outcome: IssueOutcome,
    whom: Whom = "newcomer",
) -> Answer:
    """What the user is told."""
    match outcome:
        case Issued():
            return Answer(201, parts.spelling(known).issued(shard, request.user_id, outcome))
        case Replayed():
            return Answer(201, parts.spelling(known).issued(shard, request.user_id, outcome), REPLAYED)
        case Overloaded() | StoreUnavailable():
            return _issue_unserved(parts, known, outcome, whom)
        case _:
            return issue_refusal(outcome)


async def redeem(parts: Parts, code: str, body: bytes) -> Answer:
    """Redeem or reserve the coupon for the merchant's order in the body."""
    wish = read_redeem(body)
    if isinstance(wish, Answer):
        return wish
    try:
        found = await parts.catalogue.find_coupon(code)
    except StoreError:
        return _redeem_unserved(parts, None, StoreUnavailable())
    if found is None:
        return redeem_refusal(UnknownCode())
    known, address = found
    request = redemption_of(address.sequence, wish)
    outcome = await parts.redeeming.submit(known, address.shard, request)
    return redeem_answer(parts, known, None, outcome)


def read_redeem(body: bytes) -> RedeemBody | Answer:
    """Which merchant's order wants the coupon, or what is wrong with the body."""
    try:
        wish: RedeemBody = _REDEEM_BODY.validate_json(body)
    except ValidationError as error:
        return invalid(error.errors(include_url=False, include_input=False))
    return wish


def redemption_of(sequence: int, wish: RedeemBody) -> RedeemRequest:
    """The request to the coupon's shard."""
    hold_ms = _hold_ms(wish) if wish.hold else 0
    return RedeemRequest(sequence, wish.merchant_id, wish.order_id, wish.order_amount, hold_ms)


def redeem_answer(parts: Parts, known: KnownCampaign, code: str | None, outcome: RedeemOutcome) -> Answer:
    """What the merchant is told about the coupon; whoever has its code, as it is written, spares computing that."""
    match outcome:
        case Redeemed():
            return Answer(201, parts.spelling(known).redemption(outcome.redemption, code))
        case RedemptionReplayed():
            body = parts.spelling(known).redemption(outcome.redemption, code)
            return Answer(201, body, REPLAYED)
        case Overloaded() | StoreUnavailable():
            return _redeem_unserved(parts, known, outcome)
        case _:
            return redeem_refusal(outcome)


def paused(parts: Parts, campaign_id: str, user_id: str | None = None, ticket: bytes = b"") -> Answer:
    """What a caller is told whom the breaker does not let in, and when to come back."""
    parts.metrics.count_paused(parts.catalogue.known(campaign_id))
    if ticket:
        return _come_back_in(ask_again_in_s(parts, campaign_id, ticket.decode("latin-1")))
    return _come_back_in(parts.breaker.retry_after_s(campaign_id, user_id))


def _issue_unserved(parts: Parts, known: KnownCampaign | None, outcome: NotServed, whom: Whom) -> Answer:
    parts.metrics.count_unserved("issue", known, outcome, whom)
    return issue_refusal(outcome)


def _redeem_unserved(parts: Parts, known: KnownCampaign | None, outcome: NotServed) -> Answer:
    parts.metrics.count_unserved("redeem", known, outcome, "redemption")
    return redeem_refusal(outcome)


@lru_cache(maxsize=1024)
def _come_back_in(retry_after_s: int) -> Answer:
    """Each has a place of his own to come back to, but times are told in whole seconds."""
    return issue_refusal(IssuancePaused("breaker", retry_after_s))


def _hold_ms(request: RedeemBody) -> int:
    if request.hold_for is None:
        return DEFAULT_HOLD_MS
    duration = Duration.parse(request.hold_for)
    return duration.days * DAY_MS + duration.exact_ms
