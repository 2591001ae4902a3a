"""Extensions over HTTP: one call makes every coupon valid for longer, and tells how far the tidying is."""

import re
from contextlib import suppress
from datetime import datetime
from typing import Final

from fastapi import APIRouter

from service.api.door import PartsOf
from service.api.problems import Refused, invalid, not_found, problem
from service.api.spelling import moment_text
from service.api.vocabulary import milliseconds
from service.api.wire import Extension, ExtensionRequest
from service.domain.campaign import Campaign
from service.domain.validity import MAX_EXTENSIONS
from service.store.extensions import ExtensionProgress
from service.store.long_jobs import TooManyJobs, extension_job
from service.store.scripts import StoreError

router = APIRouter(prefix="/v1", tags=["extensions"])

_NUMBER: Final = re.compile(r"[1-9][0-9]?")


@router.post("/campaigns/{campaign_id}/extensions", status_code=202)
async def extend(campaign_id: str, request: ExtensionRequest, parts: PartsOf) -> Extension:
    """Extend the validity of every coupon that is still valid. It holds when this is answered; it never shortens."""
    campaign = await _load(parts, campaign_id)
    until_ms = milliseconds(request.expires_at)
    if until_ms <= await parts.catalogue.now_ms():
        raise Refused(invalid([{"loc": ["expires_at"], "msg": "is in the past"}]))
    if request.dry_run:
        return _shown(campaign, await parts.extensions.preview(campaign, until_ms, request.reason))
    progress = await parts.extensions.extend(campaign, until_ms, request.reason)
    if progress is None:
        raise Refused(problem("too_many_extensions", f"A campaign is extended {MAX_EXTENSIONS} times at most."))
    # The extension holds already; if the queue is away, the scheduler enqueues the write-through when it is back.
    with suppress(StoreError, TooManyJobs):
        await parts.long_jobs.open(extension_job(campaign.id, progress.number))
        await parts.jobs.write_extension_through(campaign.id, progress.number)
    return _shown(campaign, progress)


@router.get("/extensions/{extension_id}")
async def read_extension(extension_id: str, parts: PartsOf) -> Extension:
    """How far an extension is."""
    campaign_id, _, number = extension_id.partition(".")
    if not _NUMBER.fullmatch(number):
        raise Refused(not_found())
    campaign = await _load(parts, campaign_id)
    progress = await parts.extensions.progress(campaign, int(number))
    if progress is None:
        raise Refused(not_found())
    return _shown(campaign, progress)


async def _load(parts: PartsOf, campaign_id: str) -> Campaign:
    campaign = await parts.catalogue.load(campaign_id)
    if campaign is None:
        raise Refused(not_found())
    return campaign


def _shown(campaign: Campaign, progress: ExtensionProgress) -> Extension:
    return Extension(
        id=f"{campaign.id}.{progress.number or 'preview'}",
        campaign_id=campaign.id,
        expires_at=datetime.fromisoformat(moment_text(progress.until_ms, campaign.validity.timezone)),
        status=progress.status.value,
        total=progress.total,
        done=progress.done,
        changed=progress.changed,
        reason=progress.reason,
    )
