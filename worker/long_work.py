"""Why: a long job is done in turns of a few steps each, and this is a turn, whatever the job's kind does in a step.

A step works for a fraction of a second and is found again in the store; only then is its progress noted in the job's
record. So a worker may be killed anywhere: the next turn repeats one step at most, and a step repeated does nothing.
"""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from service.store.long_jobs import JobKind, JobProgress, JobRecord, JobStatus, LongJobs

STEP_S: Final = 0.25
"""How long a step may work until its progress is noted."""

Step = Callable[[JobRecord], Awaitable[JobProgress]]
NoteFailure = Callable[[JobRecord, str], Awaitable[None]]

log = structlog.get_logger("tidegate.worker")


@dataclass(frozen=True, slots=True)
class Kind:
    """How jobs of one kind are done: a step at a time, and for how long in one turn.

    `note_failure` shows in what the job was about that nobody will try again, where that has a status of its own.
    """

    step: Step
    turn_s: float
    note_failure: NoteFailure | None = None


class LongWork:
    """Takes turns at long jobs. Its methods raise StoreError, and what a step raises."""

    def __init__(self, records: LongJobs, kinds: Mapping[JobKind, Kind]) -> None:
        self._records = records
        self._kinds = kinds

    async def take_turn(self, job_id: str) -> None:
        """Do step after step until the job has ended, the turn is over, or another turn has begun."""
        record = await self._records.begin(job_id)
        if record is None:
            return
        kind = self._kinds[record.kind]
        until_s = time.monotonic() + kind.turn_s
        while record.progress.status is JobStatus.RUNNING and time.monotonic() < until_s:
            record = replace(record, progress=await kind.step(record))
            if not await self._records.advance(record, record.progress):
                return
        if record.progress.status is not JobStatus.RUNNING:
            log.info("long job ended", job=job_id, status=record.progress.status)

    async def note_failure(self, job_id: str, failure: str, for_good: bool) -> None:
        """Show in the job why it does not move on, or that nobody will try again."""
        record = await self._records.find(job_id)
        if record is not None and record.progress.status in (JobStatus.PENDING, JobStatus.RUNNING):
            status = JobStatus.FAILED if for_good else record.progress.status
            kind = self._kinds[record.kind]
            if for_good and kind.note_failure is not None:
                await kind.note_failure(record, failure)
            await self._records.advance(record, replace(record.progress, status=status, error=failure))
