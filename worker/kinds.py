"""What a step of each kind of long job is, over the stores it is given; a new kind is one method here and one line."""

import time
from collections.abc import Mapping
from typing import Final

import structlog

from service.domain.campaign import Campaign
from service.store.catalogue import Catalogue
from service.store.extensions import ExtensionStore
from service.store.imports import ImportStore
from service.store.long_jobs import JobKind, JobProgress, JobRecord, JobStatus
from service.store.recounts import Recount, RecountStore
from worker.importing import Importing
from worker.long_work import STEP_S, Kind
from worker.tidying import Tidying

TURN_S: Final = 3.0
RECOUNT_TURN_S: Final = 0.3
"""Recounting never ends, so it takes a small part of the store's time and of the worker's."""
IMPORT_TURN_S: Final = 1.0
"""One of its steps sorts a million codes, and must end before the queue takes the worker for dead."""
NAMED_IN_ERROR: Final = 20
NO_SUCH_THING: Final = JobProgress(0, 0, JobStatus.FAILED, error="what it was to be done to is not there")

log = structlog.get_logger("tidegate.worker")


class Kinds:
    """The steps. Each raises StoreError when the store does not answer; what was done until then stays done."""

    def __init__(
        self, catalogue: Catalogue, extensions: ExtensionStore, recounts: RecountStore, imports: ImportStore
    ) -> None:
        self._catalogue = catalogue
        self._extensions = extensions
        self._recounts = recounts
        self._tidying = Tidying(catalogue, extensions)
        self._importing = Importing(catalogue, imports)

    def all(self) -> Mapping[JobKind, Kind]:
        """Every kind of long job."""
        return {
            JobKind.EXTENSION: Kind(self.write_extension_through, TURN_S, self.note_extension_failure),
            JobKind.UNDO: Kind(self.write_undo_through, TURN_S, self.note_extension_failure),
            JobKind.RECOUNT: Kind(self.recount, RECOUNT_TURN_S),
            JobKind.IMPORT: Kind(self._importing.step, IMPORT_TURN_S),
        }

    async def write_extension_through(self, record: JobRecord) -> JobProgress:
        """Write the extension into the next coupons; its checkpoint moves with the coupons themselves."""
        campaign, number = await self._catalogue.load(record.campaign_id), record.arguments["number"]
        await self._tidying.write_through(record.campaign_id, number, time.monotonic() + STEP_S)
        progress = None if campaign is None else await self._extensions.progress(campaign, number)
        if progress is None:
            return NO_SUCH_THING
        status = JobStatus.COMPLETED if progress.is_written else JobStatus.RUNNING
        return JobProgress(progress.done, progress.total, status)

    async def write_undo_through(self, record: JobRecord) -> JobProgress:
        """Write the undoing of the extension into the next coupons, in the same way."""
        campaign, number = await self._catalogue.load(record.campaign_id), record.arguments["number"]
        await self._tidying.write_undo_through(record.campaign_id, number, time.monotonic() + STEP_S)
        progress = None if campaign is None else await self._extensions.progress(campaign, number)
        if progress is None or progress.undo is None:
            return NO_SUCH_THING
        status = JobStatus.COMPLETED if progress.undo_is_written else JobStatus.RUNNING
        return JobProgress(progress.undo.done, progress.undo.total, status)

    async def note_extension_failure(self, record: JobRecord, failure: str) -> None:
        """Show in the extension why it is not written through, or its undoing is not."""
        await self._tidying.note_failure(record.campaign_id, record.arguments["number"], failure)

    async def recount(self, record: JobRecord) -> JobProgress:
        """Recount the next coupons; the checkpoint names the shard and how many coupons those before it had."""
        campaign = await self._catalogue.load(record.campaign_id)
        if campaign is None:
            return NO_SUCH_THING
        shard, before = map(int, record.progress.checkpoint.split() or ("0", "0"))
        total = (await self._catalogue.ledger(campaign)).counters.issued
        done, until_s = before, time.monotonic() + STEP_S
        while shard < campaign.shards and time.monotonic() < until_s:
            chunk = await self._recounts.go_on(campaign, shard)
            done = before + chunk.done
            if chunk.ended:
                shard, before = shard + 1, done
        if shard < campaign.shards:
            return JobProgress(done, max(done, total), checkpoint=f"{shard} {before}")
        latest = await self._recounts.latest(campaign)
        return _verdict(campaign, latest, done) if latest else NO_SUCH_THING


def _verdict(campaign: Campaign, recount: Recount, done: int) -> JobProgress:
    if recount.adds_up:
        return JobProgress(done, done, JobStatus.COMPLETED)
    figures = {"coupons": recount.coupons, "money": recount.money, "wrong": recount.wrong}
    named = [f"{address.shard}:{address.sequence}" for address in recount.named]
    log.error("the records do not add up", campaign=campaign.id, **figures, records=named)
    error = f"apart by {recount.coupons} coupons and {recount.money} {campaign.benefit.currency} in minor units"
    if named:
        error += f"; {recount.wrong} wrong records (shard:sequence): {' '.join(named[:NAMED_IN_ERROR])}"
    return JobProgress(done, done, JobStatus.FAILED, error=error)
