"""Imports over HTTP: the one call whose body may be large. It is taken in page by page, and judged by a job."""

import secrets
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.requests import ClientDisconnect

from service.api.door import PartsOf
from service.api.exchange import ClientGone
from service.api.jobs import shown
from service.api.parts import Parts
from service.api.problems import Refused, invalid, not_found, problem
from service.api.wire import Job
from service.domain.imported_codes import HEADING, MAX_CODES, MAX_LINE_BYTES, MAX_LINES, read_line
from service.store.imports import PAGE
from service.store.long_jobs import TooManyJobs, import_job

router = APIRouter(prefix="/v1/campaigns", tags=["imports"])

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
    import_id = secrets.token_hex(8)
    try:
        lines, pages, heading = await _take_in(parts, campaign_id, import_id, _lines_of(request))
        job = import_job(campaign_id, import_id, lines, pages, heading)
        await parts.long_jobs.open(job)
        await parts.jobs.work_on(job.id)
    except TooManyJobs:
        await parts.imports.drop(campaign_id, import_id)
        raise Refused(problem("too_many_jobs", "Try again when some have ended.")) from None
    except Refused:
        await parts.imports.drop(campaign_id, import_id)
        raise
    except ClientDisconnect:
        await parts.imports.drop(campaign_id, import_id)
        raise ClientGone from None
    record = await parts.long_jobs.find(job.id)
    assert record is not None
    return shown(record)


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


async def _take_in(parts: Parts, campaign_id: str, import_id: str, lines: AsyncIterator[bytes]) -> tuple[int, int, int]:
    """Keep the lines; how many there are, on how many pages, and how many named the column and were left out."""
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
    return number - heading, pages, heading
