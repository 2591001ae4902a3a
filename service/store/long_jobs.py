"""Long jobs: one record each, so that whoever asked sees how far it is, and any worker can go on where one has died.

A long job is done in short turns. Its record keeps how far it is and a checkpoint; the work itself stands in the
store before the record says so, so a step that is repeated must find its own traces. Beginning a turn ends the one
before it: a job has one instance, whatever becomes of its workers.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from redis.asyncio import Redis

from service.store import keys
from service.store.scripts import Scripts, store_errors

MAX_OPEN: Final = 1_000
"""How many jobs may wait or run at once."""
KEPT_OF_A_KIND: Final = 200
"""How many jobs of one kind are remembered after they have ended."""
LONGEST_ERROR: Final = 2_000
MAX_ID_LENGTH: Final = 120

_FIELDS: Final = (
    *("kind", "campaign", "arguments", "status", "turn", "done", "total", "checkpoint", "error"),
    *("opened_at", "started_at", "finished_at"),
)


class JobKind(StrEnum):
    """What a long job does."""

    EXTENSION = "extension"
    UNDO = "undo"
    RECOUNT = "recount"
    IMPORT = "import"


_KINDS: Final = frozenset(kind.value.encode() for kind in JobKind)
"""What a newer Tidegate beside this one has opened is none of this one's business."""


class JobStatus(StrEnum):
    """Where a long job stands; what failed is done again only if somebody opens it again."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class TooManyJobs(Exception):
    """MAX_OPEN long jobs wait or run."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A long job to be done. The same work has the same `id`; `arguments` are names and numbers only."""

    id: str
    kind: JobKind
    campaign_id: str
    arguments: Mapping[str, Any]


def extension_job(campaign_id: str, number: int) -> NewJob:
    """Writing an extension through. Its id is the one under which its turns wait in the queue."""
    return NewJob(f"extension-{campaign_id}-{number}", JobKind.EXTENSION, campaign_id, {"number": number})


def undo_job(campaign_id: str, number: int) -> NewJob:
    """Writing the undoing of an extension through; its turns wait under its id too."""
    return NewJob(f"undo-{campaign_id}-{number}", JobKind.UNDO, campaign_id, {"number": number})


def import_job(campaign_id: str, import_id: str, lines: int, pages: int, heading: int) -> NewJob:
    """Checking and publishing an import of so many lines, after so many lines of heading."""
    arguments = {"import": import_id, "lines": lines, "pages": pages, "heading": heading}
    return NewJob(f"import-{campaign_id}-{import_id}", JobKind.IMPORT, campaign_id, arguments)


@dataclass(frozen=True, slots=True)
class JobProgress:
    """What a step brought: `done` of `total`, and the `checkpoint` from which the next step goes on.

    A `failed` status ends the job with its `error`; an error beside another status is one that will be tried again.
    """

    done: int
    total: int
    status: JobStatus = JobStatus.RUNNING
    checkpoint: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A long job as it stands. Times are the store's, in milliseconds; None where it has not come to that."""

    id: str
    kind: JobKind
    campaign_id: str
    arguments: Mapping[str, Any]
    turn: int
    progress: JobProgress
    opened_at_ms: int
    started_at_ms: int | None
    finished_at_ms: int | None


class LongJobs:
    """The records. Every method raises StoreError when the store does not answer."""

    def __init__(self, client: Redis, scripts: Scripts) -> None:
        self._client = client
        self._scripts = scripts

    async def open(self, job: NewJob) -> None:
        """Have the job wait for its turns, unless it does or is completed; one that failed is taken up again.

        Raises TooManyJobs.
        """
        word = await self._scripts.run(
            "open_job",
            [keys.job_key(job.id), keys.OPEN_JOBS, keys.ended_jobs(job.kind)],
            *(job.id, job.kind, job.campaign_id, json.dumps(dict(job.arguments)), MAX_OPEN),
        )
        if word == b"too_many_jobs":
            raise TooManyJobs(f"{MAX_OPEN} long jobs wait or run")

    async def begin(self, job_id: str) -> JobRecord | None:
        """Take a turn at the job, which ends the turn before; None where there is no such job or it has ended."""
        turn = await self._scripts.run("begin_job", [keys.job_key(job_id)])
        begun = await self.find(job_id) if turn else None
        return begun and replace(begun, turn=turn)

    async def advance(self, record: JobRecord, progress: JobProgress) -> bool:
        """Note what a step of the record's turn brought; False, and nothing, where another turn has begun."""
        noted = await self._scripts.run(
            "advance_job",
            self._keys_of(record),
            *(record.id, record.turn, progress.status, progress.done, progress.total),
            *(progress.checkpoint, progress.error[:LONGEST_ERROR], KEPT_OF_A_KIND),
        )
        return bool(noted)

    async def find(self, job_id: str) -> JobRecord | None:
        """The job as it stands."""
        found = await self._records([job_id.encode()]) if len(job_id) <= MAX_ID_LENGTH else []
        return found[0] if found else None

    async def open_jobs(self) -> list[JobRecord]:
        """The jobs that have not ended, the oldest first."""
        return await self._records((await self._newest(keys.OPEN_JOBS, MAX_OPEN))[::-1])

    async def latest(self, limit: int) -> list[JobRecord]:
        """The jobs, those that have not ended and the latest of each kind that have, the newest first."""
        ids = await self._newest(keys.OPEN_JOBS, limit)
        for kind in JobKind:
            ids += await self._newest(keys.ended_jobs(kind), limit)
        records = await self._records(ids)
        return sorted(records, key=lambda record: (-record.opened_at_ms, record.id))[:limit]

    async def _newest(self, index: str, limit: int) -> list[bytes]:
        with store_errors():
            ids: Any = await self._client.zrange(index, 0, limit - 1, desc=True)
        return list(ids)

    async def _records(self, ids: list[bytes]) -> list[JobRecord]:
        names = [job_id.decode() for job_id in dict.fromkeys(ids)]
        with store_errors():
            pipeline = self._client.pipeline(transaction=False)
            for name in names:
                pipeline.hmget(keys.job_key(name), _FIELDS)
            replies = await pipeline.execute() if names else []
        return [_record(name, values) for name, values in zip(names, replies, strict=True) if values[0] in _KINDS]

    def _keys_of(self, record: JobRecord) -> list[str]:
        return [keys.job_key(record.id), keys.OPEN_JOBS, keys.ended_jobs(record.kind)]


def _record(job_id: str, values: list[bytes | None]) -> JobRecord:
    kind, campaign, arguments, status, turn, done, total, checkpoint, error, opened, started, finished = (
        (value or b"").decode() for value in values
    )
    return JobRecord(
        job_id,
        JobKind(kind),
        campaign,
        json.loads(arguments),
        int(turn),
        JobProgress(int(done), int(total), JobStatus(status), checkpoint, error),
        int(opened),
        int(started or 0) or None,
        int(finished or 0) or None,
    )
