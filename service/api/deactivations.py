"""Deactivation over HTTP: one code, a list of codes, or all of a user's, always with a reason."""

from typing import Annotated, Literal, assert_never

import structlog
from fastapi import APIRouter, Path

from service.api.actor import Actor
from service.api.door import AnswerResponse, PartsOf
from service.api.parts import Parts
from service.api.problems import Answer, Refused, not_found
from service.api.refusals import redeem_refusal
from service.api.vocabulary import OpaqueId
from service.api.wire import Coupon, DeactivatedCoupon, Deactivation, DeactivationRequest, Reason
from service.domain.codes import CouponAddress
from service.domain.outcomes import (
    AlreadyRedeemed,
    CouponDeactivated,
    DeactivateOutcome,
    Expired,
    ReservedElsewhere,
    UnknownCode,
)
from service.store.catalogue import KnownCampaign

router = APIRouter(prefix="/v1", tags=["coupons"])

log = structlog.get_logger()

Word = Literal["deactivated", "already_redeemed", "reserved_elsewhere", "expired", "not_found"]


@router.post("/coupons/{code}/deactivate", response_model=Coupon)
async def deactivate(code: str, reason: Reason, parts: PartsOf, actor: Actor) -> AnswerResponse:
    """Deactivate a coupon and return its money to the budget."""
    found = await parts.catalogue.find_coupon(code)
    if found is None:
        raise Refused(not_found())
    known, address = found
    (outcome,) = await parts.deactivations.deactivate(known, [address], reason.reason)
    if isinstance(outcome, CouponDeactivated):
        _log(known, 1, reason.reason, actor)
        body = parts.spelling(known).coupon(outcome.coupon)
        return AnswerResponse(Answer(200, body))
    raise Refused(redeem_refusal(outcome))


@router.post("/campaigns/{campaign_id}/deactivations")
async def deactivate_codes(
    campaign_id: str, request: DeactivationRequest, parts: PartsOf, actor: Actor
) -> Deactivation:
    """Deactivate the campaign's coupons with these codes. Those that are not free stay as they are, and are named."""
    known = await _find(parts, campaign_id)
    addresses = [await _address(parts, known, code) for code in request.codes]
    found = [address for address in addresses if address is not None]
    outcomes = dict(zip(found, await parts.deactivations.deactivate(known, found, request.reason), strict=True))
    told = [UnknownCode() if address is None else outcomes[address] for address in addresses]
    deactivation = _deactivation(campaign_id, request.codes, told)
    _log(known, deactivation.deactivated, request.reason, actor)
    return deactivation


@router.post("/campaigns/{campaign_id}/users/{user_id}/deactivate")
async def deactivate_user(
    campaign_id: str, user_id: Annotated[OpaqueId, Path()], reason: Reason, parts: PartsOf, actor: Actor
) -> Deactivation:
    """Deactivate all coupons that the user holds of the campaign. Those that are not free stay as they are."""
    known = await _find(parts, campaign_id)
    results = await parts.deactivations.deactivate_user(known, user_id, reason.reason)
    codes = [known.codes.code(address.shard, address.sequence) for address, _ in results]
    deactivation = _deactivation(campaign_id, codes, [outcome for _, outcome in results])
    _log(known, deactivation.deactivated, reason.reason, actor)
    return deactivation


def _log(known: KnownCampaign, coupons: int, reason: str, actor: str) -> None:
    """Who did it; which coupons stands in the campaign's events, and no log names those."""
    log.info("coupons deactivated", campaign=known.campaign.id, coupons=coupons, reason=reason, actor=actor)


async def _find(parts: Parts, campaign_id: str) -> KnownCampaign:
    known = await parts.catalogue.find(campaign_id)
    if known is None:
        raise Refused(not_found())
    return known


async def _address(parts: Parts, known: KnownCampaign, code: str) -> CouponAddress | None:
    found = await parts.catalogue.find_coupon(code)
    return found[1] if found is not None and found[0].campaign.id == known.campaign.id else None


def _deactivation(campaign_id: str, codes: list[str], outcomes: list[DeactivateOutcome]) -> Deactivation:
    coupons = [
        DeactivatedCoupon(code=code, outcome=_word(outcome)) for code, outcome in zip(codes, outcomes, strict=True)
    ]
    deactivated = sum(coupon.outcome == "deactivated" for coupon in coupons)
    return Deactivation(campaign_id=campaign_id, deactivated=deactivated, coupons=coupons)


def _word(outcome: DeactivateOutcome) -> Word:
    match outcome:
        case CouponDeactivated():
            return "deactivated"
        case AlreadyRedeemed():
            return "already_redeemed"
        case ReservedElsewhere():
            return "reserved_elsewhere"
        case Expired():
            return "expired"
        case UnknownCode():
            return "not_found"
        case _:
            assert_never(outcome)
