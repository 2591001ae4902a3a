"""Long jobs over HTTP: what is under way, how far it is, and why it has failed."""

from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter

from service.api.door import PartsOf
from service.api.problems import Refused, not_found
from service.api.wire import Job, JobList
from service.store.long_jobs import JobRecord

router = APIRouter(prefix="/v1/jobs", tags=["operations"])

MOST_SHOWN: Final = 100


@router.get("")
async def list_jobs(parts: PartsOf) -> JobList:
    """The long jobs, the newest first, a hundred at most. Those that have ended are forgotten after a while."""
    return JobList(jobs=[shown(record) for record in await parts.long_jobs.latest(MOST_SHOWN)])


@router.get("/{job_id}")
async def read_job(job_id: str, parts: PartsOf) -> Job:
    """How far a long job is."""
    record = await parts.long_jobs.find(job_id)
    if record is None:
        raise Refused(not_found())
    return shown(record)


def shown(record: JobRecord) -> Job:
    """The job as the wire has it."""
    progress = record.progress
    return Job(
        id=record.id,
        kind=record.kind.value,
        campaign_id=record.campaign_id,
        status=progress.status.value,
        total=progress.total,
        done=progress.done,
        started_at=_moment(record.started_at_ms),
        finished_at=_moment(record.finished_at_ms),
        error=progress.error or None,
    )


def _moment(instant_ms: int | None) -> datetime | None:
    return None if instant_ms is None else datetime.fromtimestamp(instant_ms / 1000, UTC)
