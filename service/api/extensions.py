"""Extensions over HTTP: one call makes every coupon valid for longer, and tells how far the tidying is."""

import re
from contextlib import suppress
from datetime import datetime
from typing import Final

from fastapi import APIRouter

from service.api.actor import Actor
from service.api.door import PartsOf
from service.api.extension_wire import Extension, ExtensionRequest, ExtensionScope, ExtensionUndo, MoneySum
from service.api.parts import Parts
from service.api.problems import Refused, invalid, not_found, problem
from service.api.spelling import moment_text
from service.api.vocabulary import milliseconds
from service.api.wire import Reason
from service.domain.campaign import Campaign
from service.domain.extension import Scope, Terms
from service.domain.validity import MAX_EXTENSIONS
from service.store.extension_progress import ExtensionProgress, UndoProgress
from service.store.extensions import ExtensionRefusal
from service.store.long_jobs import TooManyJobs, extension_job, undo_job
from service.store.previews import Preview
from service.store.scripts import StoreError

router = APIRouter(prefix="/v1", tags=["extensions"])

_NAME: Final = re.compile(r"([a-z0-9-]+)\.(preview-)?([1-9][0-9]{0,8})")


@router.post("/campaigns/{campaign_id}/extensions", status_code=202)
async def extend(campaign_id: str, request: ExtensionRequest, parts: PartsOf, actor: Actor) -> Extension:
    """Extend the validity of all coupons or of some. It never shortens; for all, it holds when this is answered."""
    campaign = await _load(parts, campaign_id)
    terms = Terms(
        until_ms=milliseconds(request.expires_at),
        reason=request.reason,
        actor=actor,
        include_expired=request.include_expired,
        scope=_scope(request.scope),
    )
    if terms.until_ms <= await parts.catalogue.now_ms():
        raise Refused(invalid([{"loc": ["expires_at"], "msg": "is in the past"}]))
    if request.dry_run:
        return await _preview(parts, campaign, terms)
    made = await parts.extensions.extend(campaign, terms)
    if isinstance(made, ExtensionRefusal):
        raise Refused(problem(made, f"A campaign is extended {MAX_EXTENSIONS} times at most."))
    # The extension holds already; if the queue is away, the scheduler enqueues the write-through when it is back.
    with suppress(StoreError, TooManyJobs):
        await parts.long_jobs.open(extension_job(campaign.id, made.number))
        await parts.jobs.write_extension_through(campaign.id, made.number)
    return _shown(parts, campaign, made)


@router.get("/extensions/{extension_id}")
async def read_extension(extension_id: str, parts: PartsOf) -> Extension:
    """How far an extension is, or a dry run."""
    campaign_id, is_preview, number = _parsed(extension_id)
    campaign = await _load(parts, campaign_id)
    if is_preview:
        preview = await parts.extensions.previews.read(campaign, number)
        if preview is None:
            raise Refused(not_found())
        return _previewed(campaign, preview)
    progress = await parts.extensions.progress(campaign, number)
    if progress is None:
        raise Refused(not_found())
    return _shown(parts, campaign, progress)


@router.post("/extensions/{extension_id}/undo", status_code=202)
async def undo_extension(extension_id: str, body: Reason, parts: PartsOf, actor: Actor) -> Extension:
    """Take an extension back while its window lasts. Coupons used meanwhile keep it. It holds when this is answered."""
    campaign_id, is_preview, number = _parsed(extension_id)
    campaign = await _load(parts, campaign_id)
    if is_preview:
        raise Refused(not_found())
    undone = await parts.extensions.undo(campaign, number, _undo_window_ms(parts), body.reason, actor)
    match undone:
        case ExtensionRefusal.UNDO_WINDOW_OVER:
            hours = f"{parts.settings.undo_window_s / 3600:g}"
            raise Refused(problem(undone, f"An extension can be undone within {hours} hours of its making."))
        case ExtensionRefusal():
            raise Refused(not_found())
        case ExtensionProgress():
            with suppress(StoreError, TooManyJobs):
                await parts.long_jobs.open(undo_job(campaign.id, number))
                await parts.jobs.write_undo_through(campaign.id, number)
    return _shown(parts, campaign, undone)


async def _preview(parts: Parts, campaign: Campaign, terms: Terms) -> Extension:
    issued = (await parts.catalogue.ledger(campaign)).counters.issued
    preview = await parts.extensions.previews.begin(campaign, terms, issued)
    if not preview.is_made:
        with suppress(StoreError):
            await parts.jobs.preview_extension(campaign.id, preview.number)
    return _previewed(campaign, preview)


def _parsed(extension_id: str) -> tuple[str, bool, int]:
    name = _NAME.fullmatch(extension_id)
    if name is None:
        raise Refused(not_found())
    return name[1], name[2] is not None, int(name[3])


async def _load(parts: Parts, campaign_id: str) -> Campaign:
    campaign = await parts.catalogue.load(campaign_id)
    if campaign is None:
        raise Refused(not_found())
    return campaign


def _undo_window_ms(parts: Parts) -> int:
    return parts.settings.undo_window_s * 1000


def _shown(parts: Parts, campaign: Campaign, progress: ExtensionProgress) -> Extension:
    undo = progress.undo
    return Extension(
        id=f"{campaign.id}.{progress.number}",
        campaign_id=campaign.id,
        expires_at=_moment(campaign, progress.until_ms),
        added_ms=progress.added_ms,
        scope=_scope_body(campaign, progress.scope),
        include_expired=progress.include_expired,
        status=progress.status.value,
        total=progress.total,
        done=progress.done,
        changed=progress.changed,
        revived=progress.revived,
        refused=progress.refused,
        reason=progress.reason,
        actor=progress.actor,
        made_at=_moment(campaign, progress.made_at_ms),
        undo_until=None if undo else _moment(campaign, progress.made_at_ms + _undo_window_ms(parts)),
        undo=None if undo is None else _undo_body(campaign, undo),
        liability=None,
        budget_needed=None,
    )


def _previewed(campaign: Campaign, preview: Preview) -> Extension:
    terms, currency = preview.terms, campaign.benefit.currency
    return Extension(
        id=f"{campaign.id}.preview-{preview.number}" if preview.number else f"{campaign.id}.preview",
        campaign_id=campaign.id,
        expires_at=_moment(campaign, terms.until_ms),
        added_ms=None,
        scope=_scope_body(campaign, terms.scope),
        include_expired=terms.include_expired,
        status="completed" if preview.is_made else "running" if preview.done else "pending",
        total=preview.total,
        done=preview.done,
        changed=preview.changed,
        revived=preview.revived,
        refused=0,
        reason=terms.reason,
        actor=terms.actor,
        made_at=None,
        undo_until=None,
        undo=None,
        liability=MoneySum(amount=preview.liability, currency=currency),
        budget_needed=MoneySum(amount=preview.budget_needed, currency=currency),
    )


def _undo_body(campaign: Campaign, undo: UndoProgress) -> ExtensionUndo:
    undone_at = _moment(campaign, undo.at_ms)
    assert undone_at is not None
    return ExtensionUndo(
        undone_at=undone_at,
        reason=undo.reason,
        actor=undo.actor,
        total=undo.total,
        done=undo.done,
        shortened=undo.shortened,
    )


def _scope(given: ExtensionScope | None) -> Scope | None:
    if given is None:
        return None
    return Scope(
        issued_from_ms=_given(given.issued_from),
        issued_to_ms=_given(given.issued_to),
        expiring_before_ms=_given(given.expiring_before),
        user_ids=None if given.user_ids is None else tuple(given.user_ids),
        merchant_id=given.merchant_id,
    )


def _scope_body(campaign: Campaign, scope: Scope | None) -> ExtensionScope | None:
    if scope is None:
        return None
    return ExtensionScope(
        issued_from=_moment(campaign, scope.issued_from_ms),
        issued_to=_moment(campaign, scope.issued_to_ms),
        expiring_before=_moment(campaign, scope.expiring_before_ms),
        user_ids=None if scope.user_ids is None else list(scope.user_ids),
        merchant_id=scope.merchant_id,
    )


def _given(moment: datetime | None) -> int | None:
    return None if moment is None else milliseconds(moment)


def _moment(campaign: Campaign, instant_ms: int | None) -> datetime | None:
    return None if instant_ms is None else datetime.fromisoformat(moment_text(instant_ms, campaign.validity.timezone))
