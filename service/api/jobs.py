"""Long jobs over HTTP: what is under way, how far it is, and why it has failed."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from fastapi import APIRouter

from service.api.door import PartsOf
from service.api.parts import Parts
from service.api.problems import Refused, not_found
from service.api.wire import Job, JobList
from service.store.long_jobs import JobKind, JobProgress, JobRecord, JobStatus

router = APIRouter(prefix="/v1/jobs", tags=["operations"])

MOST_SHOWN: Final = 100


@router.get("")
async def list_jobs(parts: PartsOf) -> JobList:
    """The long jobs, the newest first, a hundred at most. Those that have ended are forgotten after a while."""
    latest = await parts.long_jobs.latest(MOST_SHOWN)
    return JobList(jobs=[shown(await _up_to_date(parts, record)) for record in latest])


@router.get("/{job_id}")
async def read_job(job_id: str, parts: PartsOf) -> Job:
    """How far a long job is."""
    record = await parts.long_jobs.find(job_id)
    if record is None:
        raise Refused(not_found())
    return shown(await _up_to_date(parts, record))


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


async def _up_to_date(parts: Parts, record: JobRecord) -> JobRecord:
    """As it stands, but completed where it has failed and the job of a later extension has done its work."""
    if record.progress.status is not JobStatus.FAILED or record.kind not in (JobKind.EXTENSION, JobKind.UNDO):
        return record
    campaign = await parts.catalogue.load(record.campaign_id)
    extension = None if campaign is None else await parts.extensions.progress(campaign, record.arguments["number"])
    if extension is None:
        return record
    work = extension if record.kind is JobKind.EXTENSION else extension.undo
    if work is None or work.done < work.total:
        return record
    return replace(record, progress=JobProgress(work.done, work.total, JobStatus.COMPLETED))


def _moment(instant_ms: int | None) -> datetime | None:
    return None if instant_ms is None else datetime.fromtimestamp(instant_ms / 1000, UTC)
