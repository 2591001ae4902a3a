"""Why: what RQ calls by name, with names and numbers only. Each job is an entry point: it reads the settings, opens the
store, and works for WORK_FOR_S at most, so that no job keeps the others, or a stop, waiting; the schedule sees what is
left."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from redis import Redis
from rq.job import Job

from service.settings import read_settings
from service.store.catalogue import Catalogue
from service.store.client import connect
from service.store.events import EventStore
from service.store.export import Exporter
from service.store.extensions import ExtensionStore
from service.store.imports import ImportStore
from service.store.long_jobs import LongJobs, NewJob, extension_job, undo_job
from service.store.recounts import RecountStore
from service.store.scripts import Scripts
from service.store.webhooks import WebhookStore
from worker.exporting import Exporting
from worker.kinds import Kinds
from worker.long_work import LongWork
from worker.start import STORE_TIMEOUT_MS
from worker.tidying import Tidying

WORK_FOR_S: Final = 3.0
LONGEST_FAILURE: Final = 200
NO_CODES: Final = b""
"""The worker needs no secret: it never reads or writes a code."""


async def write_extension_through(campaign_id: str, number: int) -> None:
    """Take a turn at writing the extension into every coupon it concerns. Raises StoreError and TooManyJobs."""
    await _open_and_take_a_turn(extension_job(campaign_id, number))


async def write_undo_through(campaign_id: str, number: int) -> None:
    """Take a turn at writing the undoing of the extension into every coupon. Raises StoreError and TooManyJobs."""
    await _open_and_take_a_turn(undo_job(campaign_id, number))


async def work_on(job_id: str) -> None:
    """Take a turn at a long job. Raises StoreError, and what may go wrong in its kind of step."""
    async with _workshop() as workshop:
        await workshop.long_work.take_turn(job_id)


async def preview_extension(campaign_id: str, number: int) -> None:
    """Count what an extension would change. Raises StoreError."""
    async with _workshop() as workshop:
        await workshop.tidying.preview(campaign_id, number, time.monotonic() + WORK_FOR_S)


async def tend_campaign(campaign_id: str) -> None:
    """Open or close the campaign on time, free lapsed reservations, mark expired coupons. Raises StoreError."""
    async with _workshop() as workshop:
        await workshop.tidying.tend(campaign_id, time.monotonic() + WORK_FOR_S)


async def export_events(campaign_id: str) -> None:
    """Write the campaign's events to day files, and trim what is there. Raises StoreError, DayFilesBroken, OSError."""
    settings = read_settings()
    client = connect(settings.effective_store_url, STORE_TIMEOUT_MS)
    scripts = Scripts(client)
    exporter = Exporter(scripts, EventStore(client), settings.export_directory, settings.export.retention_ms)
    exporting = Exporting(Catalogue(client, scripts, NO_CODES), exporter, WebhookStore(client, scripts))
    try:
        await exporting.export(campaign_id, time.monotonic() + WORK_FOR_S)
    finally:
        await client.aclose()


def note_failure(
    job: Job,
    _connection: Redis,
    kind: type[BaseException],
    error: BaseException,
    _traceback: TracebackType | None,
) -> None:
    """Show why an extension or its undoing cannot be written through: in its job, and in the extension in the end.

    In the extension even where its job could not be opened. Raises StoreError.
    """
    campaign_id, number = job.args
    asyncio.run(_note_failure(job.id, _words(kind, error), not job.retries_left))
    if not job.retries_left:
        asyncio.run(_note_extension_failure(campaign_id, number, _words(kind, error)))


def note_job_failure(
    job: Job,
    _connection: Redis,
    kind: type[BaseException],
    error: BaseException,
    _traceback: TracebackType | None,
) -> None:
    """Show in a long job why it does not move on; it has failed once RQ has no retries left. Raises StoreError."""
    asyncio.run(_note_failure(job.args[0], _words(kind, error), not job.retries_left))


def _words(kind: type[BaseException], error: BaseException) -> str:
    return f"{kind.__name__}: {error}"[:LONGEST_FAILURE]


async def _open_and_take_a_turn(job: NewJob) -> None:
    async with _workshop() as workshop:
        await workshop.records.open(job)
        await workshop.long_work.take_turn(job.id)


async def _note_failure(job_id: str, failure: str, for_good: bool) -> None:
    async with _workshop() as workshop:
        await workshop.long_work.note_failure(job_id, failure, for_good)


async def _note_extension_failure(campaign_id: str, number: int, failure: str) -> None:
    async with _workshop() as workshop:
        await workshop.tidying.note_failure(campaign_id, number, failure)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What jobs are done with."""

    tidying: Tidying
    records: LongJobs
    long_work: LongWork


@asynccontextmanager
async def _workshop() -> AsyncIterator[Workshop]:
    client = connect(read_settings().effective_store_url, STORE_TIMEOUT_MS)
    scripts = Scripts(client)
    catalogue, extensions = Catalogue(client, scripts, NO_CODES), ExtensionStore(scripts)
    records = LongJobs(client, scripts)
    kinds = Kinds(catalogue, extensions, RecountStore(client, scripts), ImportStore(client, scripts))
    try:
        yield Workshop(Tidying(catalogue, extensions), records, LongWork(records, kinds.all()))
    finally:
        await client.aclose()
