"""Campaigns over HTTP: create, look, change, start, pause, resume and stop."""

import re
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Header, Path, Response

from service.api.actor import Actor
from service.api.campaign_wire import Campaign, CampaignChange, CampaignList, CampaignRequest
from service.api.door import PartsOf
from service.api.parts import Parts
from service.api.problems import Refused, not_found, problem
from service.api.translation import campaign_body, changed_campaign, new_campaign
from service.api.wire import Reason
from service.domain import campaign as domain
from service.store.catalogue import CapBelowIssued, Registration, Stale

router = APIRouter(prefix="/v1/campaigns", tags=["campaigns"])

STATUS_ATTEMPTS: Final = 5
"""How often a start, pause, resume or stop is tried anew when somebody else changed the campaign meanwhile."""

log = structlog.get_logger()

CampaignName = Annotated[str, Path(max_length=64, description="The campaign's id")]


@router.post("", status_code=201)
async def create_campaign(request: CampaignRequest, parts: PartsOf, response: Response) -> Campaign:
    """Create a campaign. It is a draft until it is started."""
    campaign = new_campaign(request, await parts.catalogue.now_ms(), parts.settings.campaign_shards)
    registration = await parts.catalogue.register(campaign)
    match registration:
        case Registration.REGISTERED:
            response.headers["location"] = f"/v1/campaigns/{campaign.id}"
            return await _shown(parts, campaign, response)
        case Registration.CAMPAIGN_EXISTS:
            raise Refused(problem(registration, f"A campaign has the id {campaign.id} already."))
        case Registration.CODE_PREFIX_TAKEN:
            raise Refused(problem(registration, f"Choose another code_prefix than {campaign.code_prefix}."))
        case Registration.TOO_MANY_CAMPAIGNS:
            raise Refused(problem(registration, f"There are {domain.MAX_CAMPAIGNS} campaigns."))


@router.get("")
async def list_campaigns(parts: PartsOf) -> CampaignList:
    """All campaigns with their live counters, the newest first."""
    campaigns = await parts.catalogue.list()
    return CampaignList(campaigns=[campaign_body(await parts.catalogue.ledger(campaign)) for campaign in campaigns])


@router.get("/{campaign_id}")
async def read_campaign(campaign_id: CampaignName, parts: PartsOf, response: Response) -> Campaign:
    """A campaign with its live counters. Its ETag is its version."""
    return await _shown(parts, await _load(parts, campaign_id), response)


@router.patch("/{campaign_id}")
async def change_campaign(
    campaign_id: CampaignName,
    change: CampaignChange,
    parts: PartsOf,
    actor: Actor,
    response: Response,
    if_match: Annotated[str | None, Header(description="The version that the change is made from")] = None,
) -> Campaign:
    """Raise or lower caps, rates or budget. Nothing that was given out is taken back."""
    if if_match is None:
        raise Refused(problem("if_match_required", "Send If-Match with the campaign's version, such as 3."))
    old = await _load(parts, campaign_id)
    if re.sub(r'^(W/)?"?|"$', "", if_match) != str(old.version):
        raise Refused(problem("version_stale", f"The campaign is at version {old.version}.", version=old.version))
    new = changed_campaign(old, change)
    try:
        refused = await parts.catalogue.update(old, new)
    except Stale:
        raise Refused(problem("version_stale", "Somebody else changed the campaign at the same moment.")) from None
    match refused:
        case CapBelowIssued("budget", given_out):
            detail = f"{given_out} is committed already in one of {old.shards} shards."
            raise Refused(problem("budget_below_committed", detail, committed=given_out))
        case CapBelowIssued(_, given_out):
            detail = f"{given_out} coupons are issued already in one of {old.shards} shards."
            raise Refused(problem("max_coupons_below_issued", detail, issued=given_out))
        case None:
            changed = await _load(parts, campaign_id)
            log.info("campaign changed", campaign=campaign_id, version=changed.version, actor=actor)
            return await _shown(parts, changed, response)


@router.post("/{campaign_id}/start")
async def start_campaign(
    campaign_id: CampaignName, body: Reason, parts: PartsOf, actor: Actor, response: Response
) -> Campaign:
    """Start a draft: it runs at once, or when its issue window opens."""
    return await _change_status(parts, campaign_id, "start", body.reason, actor, response)


@router.post("/{campaign_id}/pause")
async def pause_campaign(
    campaign_id: CampaignName, body: Reason, parts: PartsOf, actor: Actor, response: Response
) -> Campaign:
    """Pause issuance. Redemption goes on, and whoever repeats a request still gets his coupon."""
    return await _change_status(parts, campaign_id, "pause", body.reason, actor, response)


@router.post("/{campaign_id}/resume")
async def resume_campaign(
    campaign_id: CampaignName, body: Reason, parts: PartsOf, actor: Actor, response: Response
) -> Campaign:
    """Resume a paused campaign."""
    return await _change_status(parts, campaign_id, "resume", body.reason, actor, response)


@router.post("/{campaign_id}/stop")
async def stop_campaign(
    campaign_id: CampaignName, body: Reason, parts: PartsOf, actor: Actor, response: Response
) -> Campaign:
    """Stop issuance for good. Redemption goes on."""
    return await _change_status(parts, campaign_id, "stop", body.reason, actor, response)


async def _change_status(
    parts: Parts, campaign_id: str, verb: domain.StatusVerb, reason: str, actor: str, response: Response
) -> Campaign:
    for _attempt in range(STATUS_ATTEMPTS):
        old = await _load(parts, campaign_id)
        try:
            new = domain.change_status(old, verb, reason, await parts.catalogue.now_ms())
        except domain.IllegalTransition as error:
            raise Refused(problem("illegal_transition", f"{error}.", campaign_status=old.status)) from None
        if new is old:
            return await _shown(parts, old, response)
        try:
            await parts.catalogue.update(old, new)
        except Stale:
            continue
        log.info(
            "campaign changed",
            campaign=campaign_id,
            version=new.version,
            status=new.status,
            reason=reason,
            actor=actor,
        )
        return await _shown(parts, new, response)
    raise Refused(problem("version_stale", "The campaign kept changing; try again."))


async def _load(parts: Parts, campaign_id: str) -> domain.Campaign:
    campaign = await parts.catalogue.load(campaign_id)
    if campaign is None:
        raise Refused(not_found())
    return campaign


async def _shown(parts: Parts, campaign: domain.Campaign, response: Response) -> Campaign:
    response.headers["etag"] = f'"{campaign.version}"'
    return campaign_body(await parts.catalogue.ledger(campaign))
