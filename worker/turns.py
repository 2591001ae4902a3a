"""Why: somebody has to see that every long job gets its next turn, and that recounting the records never ends."""

from collections import deque
from typing import Final

from service.domain.campaign import Campaign
from service.store.catalogue import Catalogue
from service.store.jobs import JobQueue
from service.store.long_jobs import JobKind, JobRecord, LongJobs, NewJob, TooManyJobs
from service.store.recounts import RecountStore

RECOUNT_EVERY_MS: Final = 60_000
RECOUNTS_AT_ONCE: Final = 4
CAMPAIGNS_PER_LOOK: Final = 64
"""One small call for each of its shards: a thousand campaigns are looked at in a quarter of a minute."""


class Turns:
    """Enqueues turns at long jobs. What waits or runs already is not enqueued again, whoever enqueued it."""

    def __init__(self, catalogue: Catalogue, records: LongJobs, recounts: RecountStore, queue: JobQueue) -> None:
        self._catalogue = catalogue
        self._records = records
        self._recounts = recounts
        self._queue = queue
        self._round: deque[Campaign] = deque()

    async def enqueue_due(self) -> None:
        """Give every open job a turn, and open the recounts that are due. Raises StoreError."""
        jobs = await self._records.open_jobs()
        for job in jobs:
            await self._queue.work_on(job.id)
        await self._open_recounts(jobs)

    async def _open_recounts(self, jobs: list[JobRecord]) -> None:
        recounting = {job.campaign_id for job in jobs if job.kind is JobKind.RECOUNT}
        if not self._round:
            self._round.extend(await self._catalogue.list())
        now_ms = await self._catalogue.now_ms()
        for _ in range(min(CAMPAIGNS_PER_LOOK, len(self._round))):
            if len(recounting) >= RECOUNTS_AT_ONCE:
                return
            campaign = self._round.popleft()
            latest = await self._recounts.latest(campaign)
            if campaign.id in recounting or (latest is not None and now_ms - latest.at_ms < RECOUNT_EVERY_MS):
                continue
            try:
                await self._records.open(NewJob(_recount_id(campaign, now_ms), JobKind.RECOUNT, campaign.id, {}))
            except TooManyJobs:
                return
            recounting.add(campaign.id)


def _recount_id(campaign: Campaign, now_ms: int) -> str:
    return f"recount-{campaign.id}-{now_ms // 1000}"
