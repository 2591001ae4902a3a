"""Quotas over HTTP: one user may hold more than the campaign's common cap, where he has earned it."""

from typing import Annotated, assert_never

import structlog
from fastapi import APIRouter, Path

from service.api.actor import Actor
from service.api.campaign_wire import Quota, QuotaRequest
from service.api.door import PartsOf
from service.api.problems import Refused, not_found
from service.api.refusals import quota_too_high
from service.api.vocabulary import OpaqueId
from service.domain.outcomes import QuotaRaised, QuotaTooHigh, UnknownCampaign

router = APIRouter(prefix="/v1", tags=["campaigns"])

log = structlog.get_logger()


@router.put("/campaigns/{campaign_id}/users/{user_id}/quota")
async def raise_quota(
    campaign_id: str, user_id: Annotated[OpaqueId, Path()], request: QuotaRequest, parts: PartsOf, actor: Actor
) -> Quota:
    """Raise how many coupons the user may hold, up to max_quota_per_user. A quota is never lowered."""
    known = await parts.catalogue.find(campaign_id)
    if known is None:
        raise Refused(not_found())
    outcome = await parts.quotas.raise_to(known, user_id, request.max_coupons, request.reason)
    match outcome:
        case QuotaRaised(max_coupons):
            # Whose it is stands in the campaign's events: no log names a user.
            log.info("quota raised", campaign=campaign_id, max_coupons=max_coupons, reason=request.reason, actor=actor)
            return Quota(campaign_id=campaign_id, user_id=user_id, max_coupons=max_coupons)
        case QuotaTooHigh():
            raise Refused(quota_too_high(outcome))
        case UnknownCampaign():
            raise Refused(not_found())
        case _:
            assert_never(outcome)
