"""Imports over HTTP: the one call whose body may be large. It is taken in page by page, and judged by a job."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect

from service.api.door import PartsOf
from service.api.exchange import ClientGone
from service.api.jobs import shown
from service.api.parts import Parts
from service.api.problems import Refused, invalid, not_found, problem, retry_after
from service.api.wire import Job
from service.domain.imported_codes import HEADING, MAX_CODES, MAX_LINE_BYTES, MAX_LINES, read_line
from service.store.imports import PAGE
from service.store.long_jobs import JobKind, NewJob, TooManyJobs, import_job
from service.store.scripts import StoreError

router = APIRouter(prefix="/v1/campaigns", tags=["imports"])

SENT_WITHIN_S: Final = 600.0
MAX_WAITING: Final = 8
"""How many imports may wait for their job; each may fill 100 MB of the store until it is judged."""
RETRY_S: Final = 30
BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"text/csv": {"schema": {"type": "string", "description": "One code a line."}}},
    }
}


@router.post("/{campaign_id}/imports", status_code=202, openapi_extra=BODY)
async def import_codes(campaign_id: str, request: Request, parts: PartsOf) -> Job:
    """Import a merchant's codes: a CSV file of one column, a million lines at most. The job tells what came of it."""
    campaign = await parts.catalogue.load(campaign_id)
    if campaign is None:
        raise Refused(not_found())
    if campaign.imported_codes is None:
        raise Refused(problem("codes_are_computed", "Only a campaign that was created with codes imported takes any."))
    if campaign.imported_codes > 0:
        raise Refused(problem("imported_before", f"{campaign.imported_codes} codes were imported."))
    waiting = [job for job in await parts.long_jobs.open_jobs() if job.kind is JobKind.IMPORT]
    if parts.import_places.locked() or len(waiting) >= MAX_WAITING:
        raise Refused(problem("too_many_jobs", "Try again when other imports have ended.", retry_after(RETRY_S)))
    import_id = secrets.token_hex(8)
    try:
        async with parts.import_places, asyncio.timeout(SENT_WITHIN_S):
            job = await _take_in(parts, campaign_id, import_id, _lines_of(request))
    except (Refused, ClientDisconnect, TimeoutError, StoreError) as error:
        await _drop(parts, campaign_id, import_id)
        raise _told(error) from None
    try:
        # A store that does not answer here may have opened the job all the same, and it needs the lines.
        await parts.long_jobs.open(job)
    except TooManyJobs as error:
        await _drop(parts, campaign_id, import_id)
        raise _told(error) from None
    # If the queue is away, the scheduler enqueues the work when it is back.
    with suppress(StoreError):
        await parts.jobs.work_on(job.id)
    record = await parts.long_jobs.find(job.id)
    assert record is not None
    return shown(record)


async def _drop(parts: Parts, campaign_id: str, import_id: str) -> None:
    """Forget the lines. A store that does not answer forgets them by itself, after a day."""
    with suppress(StoreError):
        await parts.imports.drop(campaign_id, import_id)


def _told(error: Refused | ClientDisconnect | TimeoutError | TooManyJobs | StoreError) -> Exception:
    match error:
        case Refused() | StoreError():
            return error
        case ClientDisconnect():
            return ClientGone()
        case TimeoutError():
            return Refused(problem("sent_too_slowly", f"A file has {SENT_WITHIN_S:.0f} seconds to arrive."))
        case TooManyJobs():
            return Refused(problem("too_many_jobs", "Try again when some have ended.", retry_after(RETRY_S)))


async def _lines_of(request: Request) -> AsyncIterator[bytes]:
    """The body's lines, without their ends. Raises Refused for one that is longer than any code's."""
    rest = b""
    async for piece in request.stream():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            raise Refused(invalid([{"loc": ["body"], "msg": f"has a line of more than {MAX_LINE_BYTES} bytes"}]))
    if rest:
        yield rest


async def _take_in(parts: Parts, campaign_id: str, import_id: str, lines: AsyncIterator[bytes]) -> NewJob:
    """Keep the lines, but for one that names the column; the job that is to judge them."""
    number = heading = pages = 0
    page: list[bytes] = []
    async for line in lines:
        number += 1
        if number > MAX_LINES or number - heading > MAX_CODES:
            raise Refused(problem("body_too_large", f"A campaign has at most {MAX_CODES} imported codes."))
        if len(line) > MAX_LINE_BYTES:
            detail = f"line {number} has more than {MAX_LINE_BYTES} bytes"
            raise Refused(invalid([{"loc": ["body"], "msg": detail}]))
        if number == 1 and read_line(line).lower() == HEADING:
            heading = 1
            continue
        page.append(line)
        if len(page) == PAGE:
            await parts.imports.add_lines(campaign_id, import_id, pages, page)
            pages, page = pages + 1, []
    if page:
        await parts.imports.add_lines(campaign_id, import_id, pages, page)
        pages += 1
    if pages == 0:
        raise Refused(invalid([{"loc": ["body"], "msg": "has no codes"}]))
    return import_job(campaign_id, import_id, number - heading, pages, heading)
