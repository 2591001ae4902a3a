"""What the public looks at: whether coupons are issued, as an answer, as a stream of changes, and as a page."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.api.door import AnswerResponse, PartsOf
from service.api.noticeboard import Notice
from service.api.parts import Parts
from service.api.problems import Refused, json_answer, not_found, problem, retry_after
from service.api.status_page import CONTENT_SECURITY_POLICY, PAGE
from service.api.wire import IssuanceStatus
from service.store.scripts import StoreError

router = APIRouter(tags=["status"])

STREAM_PATH: Final = "/v1/status/stream"
MAX_LISTENERS: Final = 1_000
"""Listeners of one process; each costs a connection and a few kilobytes."""
KEEP_ALIVE_S: Final = 15.0
RECONNECT_MS: Final = 3_000
LISTENER_SPREAD_S: Final = 30
MAX_CACHE_S: Final = 1

CampaignOf = Annotated[str | None, Query(alias="campaign_id", max_length=64, description="One campaign, not all")]
Languages = Annotated[str, Header(max_length=1_000)]


@router.get("/v1/status", response_model=IssuanceStatus)
async def read_status(
    parts: PartsOf, campaign_id: CampaignOf = None, accept_language: Languages = ""
) -> AnswerResponse:
    """Whether coupons are being issued, and if not why, in the reader's language; for everybody."""
    notice = await _notice(parts, campaign_id)
    language, body = _told(notice, accept_language)
    headers = (
        (b"cache-control", b"public, max-age=%d" % MAX_CACHE_S),
        (b"content-language", language.encode()),
        (b"vary", b"accept-language"),
    )
    return AnswerResponse(json_answer(200, body, headers))


@router.get(
    STREAM_PATH,
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "A `status` event now and at each change"}},
)
async def follow_status(
    parts: PartsOf,
    campaign_id: CampaignOf = None,
    accept_language: Languages = "",
    last_event_id: Annotated[str, Header(max_length=200)] = "",
) -> StreamingResponse:
    """The status as server-sent events: now, unless `Last-Event-ID` names it, and whenever it changes."""
    await _notice(parts, campaign_id)
    if parts.noticeboard.listeners >= MAX_LISTENERS:
        detail = f"This process has {MAX_LISTENERS} listeners already; ask /v1/status, or come back later."
        raise Refused(problem("too_many_listeners", detail, retry_after(1, LISTENER_SPREAD_S)))
    return _Listening(parts, _events(parts, campaign_id, accept_language, last_event_id))


@router.get("/status", response_class=Response, include_in_schema=False)
async def show_status() -> Response:
    """A page for people that shows the stream."""
    headers = {"content-security-policy": CONTENT_SECURITY_POLICY, "cache-control": "public, max-age=60"}
    return Response(PAGE, media_type="text/html; charset=utf-8", headers=headers)


class _Listening(StreamingResponse):
    """One listener's answer: he counts from the moment it is made until it ends."""

    def __init__(self, parts: Parts, events: AsyncIterator[bytes]) -> None:
        headers = {"cache-control": "no-store", "vary": "accept-language", "x-accel-buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._noticeboard = parts.noticeboard
        self._noticeboard.listeners += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._noticeboard.listeners -= 1


async def _events(parts: Parts, campaign_id: str | None, accept_language: str, known: str) -> AsyncIterator[bytes]:
    # Each listener holds one event at most: one who reads slowly misses what changed twice, not what holds now.
    yield b"retry: %d\n\n" % RECONNECT_MS
    with suppress(Refused, StoreError):
        while not parts.noticeboard.closing:
            changed = parts.noticeboard.changed
            notice = await _notice(parts, campaign_id)
            if notice.mark != known:
                known = notice.mark
                _, body = _told(notice, accept_language)
                yield f"event: status\nid: {known}\ndata: {json.dumps(body)}\n\n".encode()
                continue
            try:
                async with asyncio.timeout(KEEP_ALIVE_S):
                    await changed.wait()
            except TimeoutError:
                yield b": still here\n\n"


async def _notice(parts: Parts, campaign_id: str | None) -> Notice:
    notice = parts.noticeboard.overall() if campaign_id is None else await parts.noticeboard.of(campaign_id)
    if notice is None:
        raise Refused(not_found())
    return notice


def _told(notice: Notice, accept_language: str) -> tuple[str, dict[str, str | int]]:
    language, message = notice.message(accept_language)
    since = datetime.fromtimestamp(notice.since_ms / 1000, UTC).isoformat(timespec="milliseconds")
    body: dict[str, str | int] = {
        "issuance": notice.issuance.value,
        "reason": notice.reason,
        "since": since,
        "retry_after_s": notice.retry_after_s,
        "message": message,
    }
    return language, body
