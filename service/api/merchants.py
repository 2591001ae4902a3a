"""Merchants over HTTP: one who cannot keep up says that he is busy, looks at it, and takes it back."""

from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Path, Query

from service.api.actor import Actor
from service.api.door import PartsOf
from service.api.parts import Parts
from service.api.problems import Refused, invalid, not_found, problem
from service.api.spelling import moment_text
from service.api.vocabulary import OpaqueId, milliseconds
from service.api.wire import BusyRequest, BusyWord, Merchant
from service.domain.campaign import Campaign
from service.domain.merchants import MAX_BUSY_MERCHANTS, MAX_BUSY_MS
from service.domain.validity import DAY_MS, Duration

router = APIRouter(prefix="/v1/merchants", tags=["merchants"])
log = structlog.get_logger()

MAX_SHARDS_TOLD: Final = 256
"""How many shards one call tells or asks: with more than these, a campaign has to be named."""

MerchantId = Annotated[OpaqueId, Path(description="The merchant's id, as in redemptions")]
CampaignId = Annotated[
    str | None, Query(max_length=64, description="One campaign; all that there are, if it is left out")
]


@router.put("/{merchant_id}/busy")
async def say_busy(merchant_id: MerchantId, body: BusyRequest, parts: PartsOf, actor: Actor) -> Merchant:
    """Refuse the merchant's redemptions for a while, with `merchant_busy`. Saying it again replaces what was said.

    Where one of several campaigns refuses, those before it have been told: look, or take it back.
    """
    until_ms = _until_ms(body, await parts.catalogue.now_ms())
    campaigns = await _campaigns(parts, body.campaign_id)
    for campaign in campaigns:
        if not await parts.merchants.say_busy(campaign, merchant_id, until_ms, body.reason):
            detail = f"{MAX_BUSY_MERCHANTS:,} merchants of the campaign {campaign.id} are busy already."
            raise Refused(problem("too_many_busy_merchants", detail))
    log.info("merchant is busy", merchant=merchant_id, campaign=body.campaign_id, reason=body.reason, actor=actor)
    return await _shown(parts, merchant_id, campaigns)


@router.get("/{merchant_id}/busy")
async def read_busy(merchant_id: MerchantId, parts: PartsOf, campaign_id: CampaignId = None) -> Merchant:
    """Where the merchant is busy, until when and why; nowhere, if he is not."""
    return await _shown(parts, merchant_id, await _campaigns(parts, campaign_id))


@router.delete("/{merchant_id}/busy")
async def take_back_busy(
    merchant_id: MerchantId, parts: PartsOf, actor: Actor, campaign_id: CampaignId = None
) -> Merchant:
    """Redeem for the merchant again. Where he was not busy, nothing changes."""
    campaigns = await _campaigns(parts, campaign_id)
    for campaign in campaigns:
        await parts.merchants.take_back(campaign, merchant_id)
    log.info("merchant is not busy any more", merchant=merchant_id, campaign=campaign_id, actor=actor)
    return await _shown(parts, merchant_id, campaigns)


def _until_ms(body: BusyRequest, now_ms: int) -> int:
    if body.until is not None:
        field, until_ms = "until", milliseconds(body.until)
    else:
        assert body.for_ is not None
        duration = Duration.parse(body.for_)
        field, until_ms = "for", now_ms + duration.days * DAY_MS + duration.exact_ms
    if not now_ms < until_ms <= now_ms + MAX_BUSY_MS:
        message = f"must end in the future, and at most {MAX_BUSY_MS // 3_600_000} hours from now"
        raise Refused(invalid([{"loc": [field], "msg": message}]))
    return until_ms


async def _campaigns(parts: Parts, campaign_id: str | None) -> list[Campaign]:
    if campaign_id is not None:
        named = await parts.catalogue.load(campaign_id)
        if named is None:
            raise Refused(not_found())
        return [named]
    campaigns = await parts.catalogue.list()
    shards = sum(campaign.shards for campaign in campaigns)
    if shards > MAX_SHARDS_TOLD:
        message = f"must name one: all campaigns have {shards} shards, and one call reaches {MAX_SHARDS_TOLD}"
        raise Refused(invalid([{"loc": ["campaign_id"], "msg": message}]))
    return campaigns


async def _shown(parts: Parts, merchant_id: str, campaigns: list[Campaign]) -> Merchant:
    words = []
    for campaign in campaigns:
        if (busy := await parts.merchants.busy(campaign, merchant_id)) is not None:
            until = moment_text(busy.until_ms, campaign.validity.timezone)
            words.append(BusyWord.model_validate({"campaign_id": campaign.id, "until": until, "reason": busy.reason}))
    return Merchant(id=merchant_id, busy=words)
