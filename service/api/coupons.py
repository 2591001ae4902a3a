"""Coupons and redemptions over HTTP. Issue and redeem are declared here, and usually answered by the fast lane."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from pydantic import TypeAdapter

from service.api import hot_calls
from service.api.door import AnswerResponse, PartsOf
from service.api.exchange import header
from service.api.parts import Parts
from service.api.problems import Answer, Refused, not_found
from service.api.refusals import not_served, wrong_redemption_status
from service.api.vocabulary import OpaqueId
from service.api.wire import Coupon, CouponList, IssueBody, OptionalReason, RedeemBody, Redemption
from service.domain.codes import CouponAddress, RedemptionAddress, split_redemption_id
from service.domain.outcomes import (
    Overloaded,
    Redeemed,
    RedemptionReplayed,
    StoreUnavailable,
    UnknownCode,
    WrongRedemptionStatus,
)
from service.domain.tickets import MAX_TICKET_LENGTH
from service.store.catalogue import KnownCampaign
from service.store.coupons import SettleVerb

router = APIRouter(prefix="/v1", tags=["coupons"])

IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": hot_calls.MAX_KEY_BYTES},
    "description": "The same when a request is repeated.",
}
TICKET: Final = {
    "name": "Tidegate-Ticket",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "maxLength": MAX_TICKET_LENGTH},
    "description": "The ticket of whoever took a place in line, once it is called.",
}
"""Headers by OpenAPI, which the hot call reads and refuses by itself, as on the fast lane."""


def _body(kind: type) -> dict[str, Any]:
    """How OpenAPI describes a body that the handler reads itself."""
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": TypeAdapter(kind).json_schema()}}}
    }


@router.post(
    "/campaigns/{campaign_id}/coupons",
    status_code=201,
    responses={201: {"model": Coupon}},
    openapi_extra={"parameters": [IDEMPOTENCY_KEY, TICKET], **_body(IssueBody)},
)
async def issue(campaign_id: str, request: Request, parts: PartsOf) -> AnswerResponse:
    """Issue one coupon to a user. Repeating a request with its Idempotency-Key gives the same coupon again."""
    head = request.headers.raw
    key, ticket = header(head, b"idempotency-key"), header(head, hot_calls.TICKET)
    refused = hot_calls.refused_unread(parts, campaign_id, ticket)
    if refused is not None:
        return AnswerResponse(refused)
    return AnswerResponse(await hot_calls.issue(parts, campaign_id, key, await request.body(), ticket))


@router.get("/campaigns/{campaign_id}/users/{user_id}/coupons", response_model=CouponList)
async def list_user_coupons(campaign_id: str, user_id: Annotated[OpaqueId, Path()], parts: PartsOf) -> AnswerResponse:
    """The user's coupons of one campaign, the oldest first."""
    known = await parts.catalogue.find(campaign_id)
    if known is None:
        raise Refused(not_found())
    spelling = parts.spelling(known)
    coupons = [spelling.coupon(coupon) for coupon in await parts.coupons.user_coupons(known, user_id)]
    return _ok(b'{"coupons":[%s]}' % b",".join(coupons))


@router.get("/coupons/{code}", response_model=Coupon)
async def read_coupon(code: str, parts: PartsOf) -> AnswerResponse:
    """The coupon as it stands now."""
    known, address = await _find_coupon(parts, code)
    coupon = await parts.coupons.coupon(known, address)
    if isinstance(coupon, UnknownCode):
        raise Refused(not_found())
    return _ok(parts.spelling(known).coupon(coupon))


@router.post(
    "/coupons/{code}/redemptions",
    status_code=201,
    responses={201: {"model": Redemption}},
    openapi_extra=_body(RedeemBody),
)
async def redeem(code: str, request: Request, parts: PartsOf) -> AnswerResponse:
    """Redeem a coupon for a merchant's order, or reserve it with `hold`. The same order again changes nothing."""
    return AnswerResponse(await hot_calls.redeem(parts, code, await request.body()))


@router.post("/redemptions/{redemption_id}/commit", response_model=Redemption)
async def commit(redemption_id: str, parts: PartsOf, body: OptionalReason | None = None) -> AnswerResponse:
    """Commit a reservation: the coupon is redeemed. Asking again changes nothing more."""
    return await _settle(parts, redemption_id, "commit", body)


@router.post("/redemptions/{redemption_id}/release", response_model=Redemption)
async def release(redemption_id: str, parts: PartsOf, body: OptionalReason | None = None) -> AnswerResponse:
    """Release a reservation: the coupon is free again. Asking again changes nothing more."""
    return await _settle(parts, redemption_id, "release", body)


@router.post("/redemptions/{redemption_id}/rollback", response_model=Redemption)
async def rollback(redemption_id: str, parts: PartsOf, body: OptionalReason | None = None) -> AnswerResponse:
    """Take a committed redemption back: the coupon is free again. Asking again changes nothing more."""
    return await _settle(parts, redemption_id, "rollback", body)


async def _settle(parts: Parts, redemption_id: str, verb: SettleVerb, body: OptionalReason | None) -> AnswerResponse:
    known, address = await _find_redemption(parts, redemption_id)
    outcome = await parts.coupons.settle(known, verb, address, body.reason if body else "")
    match outcome:
        case Redeemed(redemption) | RedemptionReplayed(redemption):
            return _ok(parts.spelling(known).redemption(redemption))
        case WrongRedemptionStatus():
            raise Refused(wrong_redemption_status(outcome))
        case UnknownCode():
            raise Refused(not_found())
        case Overloaded() | StoreUnavailable():
            raise Refused(not_served(outcome))


async def _find_coupon(parts: Parts, code: str) -> tuple[KnownCampaign, CouponAddress]:
    found = await parts.catalogue.find_coupon(code)
    if found is None:
        raise Refused(not_found())
    return found


async def _find_redemption(parts: Parts, redemption_id: str) -> tuple[KnownCampaign, RedemptionAddress]:
    split = split_redemption_id(redemption_id)
    known = await parts.catalogue.find_by_prefix(split[0]) if split else None
    address = known.codes.read_redemption_id(split[1]) if split and known else None
    if known is None or address is None:
        raise Refused(not_found())
    return known, address


def _ok(body: bytes) -> AnswerResponse:
    return AnswerResponse(Answer(200, body))
