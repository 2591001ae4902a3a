"""Why: somebody has to notice what is due: this process looks at the campaigns, round after round, and enqueues it.

It keeps nothing in mind: what is left to do stands in the store, so a lost job is enqueued again in the next round.
RQ's CronScheduler cannot do it: it builds its queues without a serializer, so with pickle where ours read JSON.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NoReturn

import structlog

from service.domain.campaign import Campaign, scheduled_status
from service.store.catalogue import Catalogue
from service.store.chores import ChoreStore
from service.store.client import connect
from service.store.events import EventStore
from service.store.export import Exporter
from service.store.heartbeat import Heartbeat
from service.store.jobs import JobQueue
from service.store.long_jobs import LongJobs
from service.store.recounts import RecountStore
from service.store.scripts import Scripts, StoreError
from worker.jobs import NO_CODES
from worker.start import STORE_TIMEOUT_MS, begin
from worker.turns import Turns

TICK_S: Final = 1.0
SHARDS_PER_TICK: Final = 256
"""One small script call each: 10,000 campaigns of one shard are looked at in 40 seconds."""
LONGEST_PAUSE_S: Final = 15.0

log = structlog.get_logger("tidegate.scheduler")


class Schedule:
    """Goes round the campaigns. What waits or runs already is not enqueued again, whoever enqueued it."""

    def __init__(self, catalogue: Catalogue, chores: ChoreStore, exporter: Exporter, jobs: JobQueue) -> None:
        self._catalogue = catalogue
        self._chores = chores
        self._exporter = exporter
        self._jobs = jobs
        self._round: deque[Campaign] = deque()

    async def enqueue_due(self) -> None:
        """Look at the next campaigns of the round, SHARDS_PER_TICK and a campaign at most. Raises StoreError."""
        if not self._round:
            self._round.extend(await self._catalogue.list())
        shards = 0
        while self._round and shards < SHARDS_PER_TICK:
            campaign = self._round.popleft()
            shards += campaign.shards
            chores = await self._chores.find(campaign)
            if chores.unwritten_extension is not None:
                await self._jobs.write_extension_through(campaign.id, chores.unwritten_extension)
            for undone in chores.undoings:
                await self._jobs.write_undo_through(campaign.id, undone)
            if chores.unmade_preview is not None:
                await self._jobs.preview_extension(campaign.id, chores.unmade_preview)
            if chores.needs_tending or scheduled_status(campaign, chores.now_ms) is not campaign.status:
                await self._jobs.tend_campaign(campaign.id)
            if await self._exporter.is_due(campaign):
                await self._jobs.export_events(campaign.id)


def keep_going(tick: Callable[[], None]) -> NoReturn:
    """Call `tick` each TICK_S; while the store fails, after ever longer pauses up to LONGEST_PAUSE_S."""
    pause_s = TICK_S
    while True:
        try:
            tick()
        except StoreError as error:
            if pause_s == TICK_S:
                log.warning("the store does not answer", reason=str(error))
            pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
        else:
            if pause_s != TICK_S:
                log.info("the store answers again")
            pause_s = TICK_S
        time.sleep(pause_s)


def main() -> NoReturn:
    """Run until a signal ends it."""
    settings = begin("scheduler")
    jobs = JobQueue(settings.effective_queue_url)
    client = connect(settings.effective_store_url, STORE_TIMEOUT_MS)
    scripts = Scripts(client)
    catalogue = Catalogue(client, scripts, NO_CODES)
    exporter = Exporter(scripts, EventStore(client), settings.export_directory, settings.export.retention_ms)
    schedule = Schedule(catalogue, ChoreStore(scripts), exporter, jobs)
    turns = Turns(catalogue, LongJobs(client, scripts), RecountStore(client, scripts), jobs)
    heartbeat = Heartbeat(client, scripts)
    with asyncio.Runner() as runner:

        def tick() -> None:
            runner.run(schedule.enqueue_due())
            runner.run(turns.enqueue_due())
            jobs.revive()
            # Last, so that a scheduler whose every tick fails is missed like one that is dead.
            runner.run(heartbeat.beat())

        log.info("scheduler started")
        keep_going(tick)


if __name__ == "__main__":
    main()
