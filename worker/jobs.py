"""Why: what RQ calls by name, with names and numbers only. Each job is an entry point: it reads the settings, opens the
store, and works for WORK_FOR_S at most, so that no job keeps the others, or a stop, waiting; the schedule sees what is
left."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from service.store.scripts import Scripts
from service.store.webhooks import WebhookStore
from worker.exporting import Exporting
from worker.start import STORE_TIMEOUT_MS
from worker.tidying import Tidying

WORK_FOR_S: Final = 3.0
LONGEST_FAILURE: Final = 200
NO_CODES: Final = b""
"""The worker needs no secret: it never reads or writes a code."""


async def write_extension_through(campaign_id: str, number: int) -> None:
    """Write the extension into every coupon it concerns. Raises StoreError."""
    async with _tidying() as tidying:
        await tidying.write_through(campaign_id, number, time.monotonic() + WORK_FOR_S)


async def tend_campaign(campaign_id: str) -> None:
    """Open or close the campaign on time, free lapsed reservations, mark expired coupons. Raises StoreError."""
    async with _tidying() as tidying:
        await tidying.tend(campaign_id, time.monotonic() + WORK_FOR_S)


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
    """Show in the extension why it cannot be written through, once RQ has no retries left. Raises StoreError."""
    if not job.retries_left:
        campaign_id, number = job.args
        asyncio.run(_note_failure(campaign_id, number, f"{kind.__name__}: {error}"[:LONGEST_FAILURE]))


async def _note_failure(campaign_id: str, number: int, failure: str) -> None:
    async with _tidying() as tidying:
        await tidying.note_failure(campaign_id, number, failure)


@asynccontextmanager
async def _tidying() -> AsyncIterator[Tidying]:
    client = connect(read_settings().effective_store_url, STORE_TIMEOUT_MS)
    scripts = Scripts(client)
    try:
        yield Tidying(Catalogue(client, scripts, NO_CODES), ExtensionStore(scripts))
    finally:
        await client.aclose()
