"""Why: work that outlives a request waits in a queue on disk, so that any worker can do it and none of it is lost.

A job is enqueued by its name and carries names and numbers only, as JSON. Its id says what it does, so that the same
work never waits twice. Every job is short: it works for a bounded time and leaves the rest to the next one. So a
worker that has been silent for longer than a job may take is dead, and its job is put back.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from logging import NOTSET
from typing import Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry as CommandRetry
from rq import Callback, Queue, Retry
from rq.exceptions import DuplicateJobError
from rq.job import JobStatus
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer

from service.store.scripts import store_errors

NAME: Final = "tidegate"
WRITE_EXTENSION_THROUGH: Final = "worker.jobs.write_extension_through"
WRITE_UNDO_THROUGH: Final = "worker.jobs.write_undo_through"
TEND_CAMPAIGN: Final = "worker.jobs.tend_campaign"
EXPORT_EVENTS: Final = "worker.jobs.export_events"
NOTE_FAILURE: Final = "worker.jobs.note_failure"
PREVIEW_EXTENSION: Final = "worker.jobs.preview_extension"
WORK_ON: Final = "worker.jobs.work_on"
NOTE_JOB_FAILURE: Final = "worker.jobs.note_job_failure"

CALL_TIMEOUT_S: Final = 2.0
JOB_TIMEOUT_S: Final = 7
CALLBACK_TIMEOUT_S: Final = 2
SILENT_AFTER_S: Final = 10
"""A worker that has not ended its job by then is dead: more than the job and its callback may take together."""
RETRY_PAUSES_S: Final = (1, 5, 15)
LONG_JOB_RETRY_PAUSES_S: Final = (1, 5, 15, 60, 300)
DONE_FOR_S: Final = 1
"""How long a job that is done keeps its id. With 0, RQ 3.0 fails it instead where an earlier run of it died."""
FAILED_FOR_S: Final = 120
"""How long a job that failed for good is kept, and so keeps the same work from being enqueued afresh."""


class QueueOnCluster(Exception):
    """RQ's server is part of a Cluster, on which RQ cannot run."""


@dataclass(frozen=True, slots=True)
class QueueFigures:
    """How many jobs there are in each state, and for how long the oldest has been waiting."""

    name: str
    queued: int
    started: int
    failed: int
    scheduled: int
    oldest_age_s: float


class JobQueue:
    """The queue, over connections of its own. Every method but `close` raises StoreError when it does not answer."""

    def __init__(self, url: str) -> None:
        self._connection = Redis.from_url(
            url,
            retry=CommandRetry(NoBackoff(), 0),
            socket_timeout=CALL_TIMEOUT_S,
            socket_connect_timeout=CALL_TIMEOUT_S,
        )
        self.rq = Queue(NAME, connection=self._connection, serializer=JSONSerializer)
        self._scheduled = self.rq.scheduled_job_registry
        self._retries = RQScheduler(
            [self.rq], connection=self._connection, serializer=JSONSerializer, logging_level=NOTSET
        )
        # Without RQ's lock, which would outlive a killed scheduler by a minute. Two schedulers may put a job back
        # twice; then the second run finds nothing to do.
        self._retries.prepare_registries([NAME])

    async def write_extension_through(self, campaign_id: str, number: int) -> None:
        """Have the extension, and the earlier ones before it, written into every coupon."""
        await asyncio.to_thread(
            self._enqueue,
            f"extension-{campaign_id}-{number}",
            WRITE_EXTENSION_THROUGH,
            [campaign_id, number],
            Callback(NOTE_FAILURE, timeout=CALLBACK_TIMEOUT_S),
        )

    async def write_undo_through(self, campaign_id: str, number: int) -> None:
        """Have the undoing of the extension, and all that was made before it, written into every coupon."""
        await asyncio.to_thread(
            self._enqueue,
            f"undo-{campaign_id}-{number}",
            WRITE_UNDO_THROUGH,
            [campaign_id, number],
            Callback(NOTE_FAILURE, timeout=CALLBACK_TIMEOUT_S),
        )

    async def preview_extension(self, campaign_id: str, number: int) -> None:
        """Have a preview counted."""
        await asyncio.to_thread(
            self._enqueue, f"preview-{campaign_id}-{number}", PREVIEW_EXTENSION, [campaign_id, number]
        )

    async def tend_campaign(self, campaign_id: str) -> None:
        """Have the campaign opened or closed on time and its expired coupons and lapsed reservations tidied."""
        await asyncio.to_thread(self._enqueue, f"tend-{campaign_id}", TEND_CAMPAIGN, [campaign_id])

    async def export_events(self, campaign_id: str) -> None:
        """Have the campaign's events written to day files and trimmed."""
        await asyncio.to_thread(self._enqueue, f"export-{campaign_id}", EXPORT_EVENTS, [campaign_id])

    async def work_on(self, job_id: str) -> None:
        """Have a turn taken at a long job. One turn waits or runs at a time, under the job's own id."""
        await asyncio.to_thread(
            self._enqueue,
            job_id,
            WORK_ON,
            [job_id],
            Callback(NOTE_JOB_FAILURE, timeout=CALLBACK_TIMEOUT_S),
            LONG_JOB_RETRY_PAUSES_S,
        )

    async def figures(self) -> QueueFigures:
        """The queue as it stands now."""
        return await asyncio.to_thread(self._figures)

    def check(self) -> None:
        """Ask the server whether it is there and can carry a queue. Raises QueueOnCluster too."""
        with store_errors():
            facts = self._connection.info("cluster")
        if facts["cluster_enabled"]:
            raise QueueOnCluster(
                "the queue's server is part of a Cluster, on which RQ cannot run; "
                "name a single server with TIDEGATE_QUEUE_URL"
            )

    def revive(self) -> None:
        """Put back the jobs whose pause before a retry is over, and those whose worker has fallen silent.

        What fails for good calls its callback here: in the main thread, with no event loop running.
        """
        with store_errors():
            self._retries.enqueue_scheduled_jobs()  # type: ignore[no-untyped-call]
            mend_half_scheduled(self.rq)
            self.rq.started_job_registry.cleanup()
            self.rq.failed_job_registry.cleanup()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()
        self._retries.connection.close()

    def _enqueue(
        self,
        job_id: str,
        name: str,
        arguments: list[str | int],
        on_failure: Callback | None = None,
        retry_pauses_s: Sequence[int] = RETRY_PAUSES_S,
    ) -> None:
        with store_errors(), suppress(DuplicateJobError):
            self.rq.enqueue(
                name,
                args=arguments,
                job_id=job_id,
                unique=True,
                retry=Retry(max=len(retry_pauses_s), interval=list(retry_pauses_s)),
                job_timeout=JOB_TIMEOUT_S,
                result_ttl=DONE_FOR_S,
                failure_ttl=FAILED_FOR_S,
                on_failure=on_failure,
            )

    def _figures(self) -> QueueFigures:
        with store_errors():
            return QueueFigures(
                NAME,
                queued=self.rq.count,
                started=self.rq.started_job_registry.get_job_count(cleanup=False),
                failed=self.rq.failed_job_registry.get_job_count(cleanup=False),
                scheduled=self._scheduled.get_job_count(cleanup=False),
                oldest_age_s=self._oldest_age_s(),
            )

    def _oldest_age_s(self) -> float:
        for job in self.rq.get_jobs(offset=0, length=1):
            if job.enqueued_at is not None:
                return max(0.0, (datetime.now(UTC) - job.enqueued_at).total_seconds())
        return 0.0


def mend_half_scheduled(queue: Queue) -> None:
    """Have RQ put the jobs back whose worker died while it did so; before each cleanup of what is started.

    RQ calls a job scheduled before it schedules it; whoever dies in between leaves it nowhere, and RQ forgets it then.
    """
    for job_id in queue.started_job_registry.get_expired_job_ids():
        job = queue.fetch_job(job_id)
        if job and job.get_status(refresh=False) is JobStatus.SCHEDULED and job not in queue.scheduled_job_registry:
            job.set_status(JobStatus.STARTED)
