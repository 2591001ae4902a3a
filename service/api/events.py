"""Events over HTTP: what has happened to a campaign's coupons, page by page or as it happens."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.api.door import AnswerResponse, PartsOf
from service.api.listeners import MAX_LISTENERS, Listeners
from service.api.parts import Parts
from service.api.problems import Refused, invalid, not_found, problem, retry_after
from service.domain.campaign import Campaign
from service.domain.codes import CodeBook
from service.domain.events import LONGEST_CURSOR, Cursor, Event, moment, parts_of
from service.store.catalogue import KnownCampaign
from service.store.events import EVENTS_PER_READ, CursorTooOld
from service.store.scripts import StoreError

router = APIRouter(prefix="/v1/campaigns", tags=["events"])

NDJSON: Final = "application/x-ndjson"
KEEP_ALIVE_S: Final = 10.0
"""A line without an event, so that a connection that died is noticed at both ends."""

RETRY_SPREAD_S: Final = 30

log = structlog.get_logger()


@router.get(
    "/{campaign_id}/events",
    response_class=Response,
    responses={200: {"content": {NDJSON: {}}, "description": "One event a line"}},
)
async def read_events(
    campaign_id: str,
    parts: PartsOf,
    cursor: Annotated[str | None, Query(max_length=LONGEST_CURSOR, description="That of the last line read")] = None,
    follow: Annotated[bool, Query(description="Stay, and be told what happens")] = False,
    limit: Annotated[int, Query(ge=1, le=EVENTS_PER_READ, description="Most events to read, without follow")] = 100,
) -> Response:
    """The campaign's events after the cursor, in order within each shard, or from the oldest that the store has."""
    known = await parts.catalogue.find(campaign_id)
    if known is None:
        raise Refused(not_found())
    campaign = known.campaign
    read_to = await _cursor(parts, campaign, cursor)
    try:
        events = (await parts.events.read(campaign, read_to, limit))[:limit]
    except CursorTooOld:
        oldest = str(await parts.events.oldest(campaign))
        detail = "What followed this cursor is in the day files only; go on from the cursor given here."
        raise Refused(problem("cursor_expired", detail, cursor=oldest)) from None
    if follow:
        return FollowingResponse(_follow(parts, known, read_to, events), parts.listeners)
    lines = [line async for line in _lines(campaign.id, known.codes, read_to, events)]
    return Response(b"".join(lines), media_type=NDJSON)


async def _cursor(parts: Parts, campaign: Campaign, text: str | None) -> Cursor:
    if text is None:
        return await parts.events.oldest(campaign)
    try:
        return Cursor.parse(text, campaign.shards)
    except ValueError:
        raise Refused(invalid([{"loc": ["cursor"], "msg": "is no cursor of this campaign"}])) from None


async def _follow(parts: Parts, known: KnownCampaign, cursor: Cursor, events: list[Event]) -> AsyncIterator[bytes]:
    # The first line makes the server send the answer's head at once.
    yield b"\n"
    told_at = time.monotonic()
    try:
        while not parts.listeners.stopping:
            for event in events:
                async for line in _lines(known.campaign.id, known.codes, cursor, [event]):
                    yield line
                cursor, told_at = cursor.after(event), time.monotonic()
            if time.monotonic() - told_at >= KEEP_ALIVE_S:
                yield b"\n"
                told_at = time.monotonic()
            if not events:
                await parts.awaited_events.wait(known.campaign, cursor)
            events = await parts.events.read(known.campaign, cursor)
    except (StoreError, CursorTooOld) as error:
        # It has its cursor, and comes back with it.
        log.warning("a listener is sent away", campaign=known.campaign.id, reason=str(error))


async def _lines(campaign_id: str, codes: CodeBook, cursor: Cursor, events: Iterable[Event]) -> AsyncIterator[bytes]:
    """The events in JSON. Of an event in several parts only the last moves the cursor, so that none is lost.

    To spell the codes of a large batch takes as long as many a redemption, so others are served between two events.
    """
    for event in events:
        parts = list(parts_of(event, codes, campaign_id))
        for number, data in enumerate(parts, start=1):
            line = {
                "cursor": str(cursor.after(event) if number == len(parts) else cursor),
                "type": event.type,
                "at": moment(event.id.at_ms),
                "campaign_id": campaign_id,
                "data": data,
            }
            yield json.dumps(line, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
        cursor = cursor.after(event)
        await asyncio.sleep(0)


class FollowingResponse(StreamingResponse):
    """Lines without an end, or a problem where too many listen already."""

    def __init__(self, lines: AsyncIterator[bytes], listeners: Listeners) -> None:
        super().__init__(lines, media_type=NDJSON, headers={"cache-control": "no-store"})
        self._listeners = listeners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        with self._listeners.one_more() as admitted:
            if admitted:
                await super().__call__(scope, receive, send)
                return
        detail = f"{MAX_LISTENERS} are following events here; read without follow, or come back."
        refused = problem("too_many_listeners", detail, retry_after(1, RETRY_SPREAD_S))
        await AnswerResponse(refused)(scope, receive, send)
