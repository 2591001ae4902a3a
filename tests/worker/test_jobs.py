"""The queue: the same work waits once, a job carries names and numbers only, and none is lost with its worker."""

import asyncio
import json
import logging
import signal
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import pytest
from rq.job import Job
from rq.job import JobStatus as TurnStatus
from rq.serializers import JSONSerializer
from rq.utils import import_attribute

from service.store.extension_progress import ExtensionStatus
from service.store.jobs import (
    DONE_FOR_S,
    FAILED_FOR_S,
    LONG_JOB_RETRY_PAUSES_S,
    NOTE_FAILURE,
    NOTE_JOB_FAILURE,
    PREVIEW_EXTENSION,
    RETRY_PAUSES_S,
    SILENT_AFTER_S,
    TEND_CAMPAIGN,
    WORK_ON,
    WRITE_EXTENSION_THROUGH,
    WRITE_UNDO_THROUGH,
    JobQueue,
)
from service.store.long_jobs import JobRecord, JobStatus, NewJob, extension_job
from tests.store.desk import Room
from tests.worker.processes import BATCH, NEXT_WEEK, in_the_store, open_with_coupons, progress
from worker.__main__ import RQ_MISSES_ITS_STORE, Absence, JobWorker

COUPONS: Final = "tg:{spring:0}:rows:0"


@pytest.fixture(autouse=True)
def settings_of_the_worker(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEGATE_STORE_URL", store_url)


@pytest.fixture(autouse=True)
def signals_stay_as_they_were() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


async def open_and_extend(room: Room) -> None:
    desk = await open_with_coupons(room, batches=1)
    await desk.extend(NEXT_WEEK)


def test_rq_says_once_that_the_queue_is_away_and_again_after_it_was_back() -> None:
    absence = Absence()
    missed = logging.makeLogRecord({"msg": f"{RQ_MISSES_ITS_STORE}: %s retrying in %d seconds..."})
    assert [absence.filter(missed) for _ in range(3)] == [True, False, False]
    assert absence.filter(logging.makeLogRecord({"msg": "something else"}))
    absence.noted = False
    assert [absence.filter(missed) for _ in range(2)] == [True, False]


def a_worker(jobs: JobQueue) -> JobWorker:
    return JobWorker([jobs.rq], connection=jobs.rq.connection, serializer=JSONSerializer)


def do_what_waits(jobs: JobQueue) -> None:
    a_worker(jobs).work(burst=True)


def take_a_job_and_die(jobs: JobQueue) -> Job:
    worker = a_worker(jobs)
    taken = worker.dequeue_job_and_maintain_ttl(None)
    assert taken is not None
    worker.prepare_execution(taken[0])
    worker.prepare_job_execution(taken[0], remove_from_intermediate_queue=True)
    return taken[0]


def let_time_pass(jobs: JobQueue, seconds: int) -> None:
    """Turn what RQ remembers back by so many seconds: it has no clock that a test could turn."""
    for registry in (jobs.rq.started_job_registry, jobs.rq.scheduled_job_registry, jobs.rq.failed_job_registry):
        for member, _ in jobs.rq.connection.zscan_iter(registry.key):
            jobs.rq.connection.zincrby(registry.key, -seconds, member)
    for key in jobs.rq.connection.scan_iter("rq:*"):
        if (left_ms := jobs.rq.connection.pttl(key)) > 0:
            jobs.rq.connection.pexpire(key, left_ms - 1000 * seconds)


def depths(jobs: JobQueue) -> dict[str, int]:
    figures = asyncio.run(jobs.figures())
    return {
        state: getattr(figures, state)
        for state in ("queued", "started", "failed", "scheduled")
        if getattr(figures, state)
    }


def leave_no_retries(jobs: JobQueue) -> None:
    [job] = jobs.rq.jobs
    job.retries_left = 0
    job.save()


def break_the_coupons(jobs: JobQueue) -> None:
    jobs.rq.connection.rename(COUPONS, "test:kept")
    jobs.rq.connection.set(COUPONS, "not a hash")


def mend_the_coupons(jobs: JobQueue) -> None:
    jobs.rq.connection.rename("test:kept", COUPONS)


@pytest.mark.parametrize(
    "name",
    [
        WRITE_EXTENSION_THROUGH,
        WRITE_UNDO_THROUGH,
        PREVIEW_EXTENSION,
        TEND_CAMPAIGN,
        NOTE_FAILURE,
        WORK_ON,
        NOTE_JOB_FAILURE,
    ],
)
def test_every_name_that_is_enqueued_can_be_called(name: str) -> None:
    assert callable(import_attribute(name))


def test_a_job_carries_names_and_numbers_only(jobs: JobQueue) -> None:
    asyncio.run(jobs.write_extension_through("spring", 3))
    [job] = jobs.rq.jobs
    assert json.loads(job.data) == [WRITE_EXTENSION_THROUGH, None, ["spring", 3], {}]


def test_the_same_work_waits_once(jobs: JobQueue) -> None:
    for _ in range(3):
        asyncio.run(jobs.write_extension_through("spring", 1))
        asyncio.run(jobs.write_extension_through("spring", 2))
        asyncio.run(jobs.tend_campaign("spring"))
    assert jobs.rq.job_ids == ["extension-spring-1", "extension-spring-2", "tend-spring"]


def test_a_worker_writes_an_extension_through_and_forgets_the_job(jobs: JobQueue, store_url: str) -> None:
    in_the_store(store_url, open_and_extend)
    asyncio.run(jobs.write_extension_through("spring", 1))
    asyncio.run(jobs.tend_campaign("spring"))
    do_what_waits(jobs)
    assert in_the_store(store_url, progress).status is ExtensionStatus.COMPLETED
    assert depths(jobs) == {}
    let_time_pass(jobs, DONE_FOR_S)
    asyncio.run(jobs.write_extension_through("spring", 1))
    assert depths(jobs) == {"queued": 1}


def test_a_long_job_says_why_it_waits_and_in_the_end_why_it_has_failed(jobs: JobQueue, store_url: str) -> None:
    in_the_store(store_url, open_and_extend)
    job = extension_job("spring", 1)
    in_the_store(store_url, partial(open_long_job, job=job))
    break_the_coupons(jobs)
    for status, depth in ((JobStatus.RUNNING, "scheduled"), (JobStatus.FAILED, "failed")):
        asyncio.run(jobs.work_on(job.id))
        if status is JobStatus.FAILED:
            leave_no_retries(jobs)
        do_what_waits(jobs)
        record = in_the_store(store_url, partial(long_job, job=job))
        assert (record.progress.status, depths(jobs)) == (status, {depth: 1})
        assert "WRONGTYPE" in record.progress.error
        let_time_pass(jobs, LONG_JOB_RETRY_PAUSES_S[0] + 1)
        jobs.revive()
    mend_the_coupons(jobs)
    jobs.rq.connection.delete(*jobs.rq.connection.keys("rq:*"))
    in_the_store(store_url, partial(open_long_job, job=job))
    asyncio.run(jobs.work_on(job.id))
    do_what_waits(jobs)
    done = in_the_store(store_url, partial(long_job, job=job)).progress
    assert (done.status, done.done, done.error) == (JobStatus.COMPLETED, BATCH, "")


async def open_long_job(room: Room, job: NewJob) -> None:
    await room.long_jobs.open(job)


async def long_job(room: Room, job: NewJob) -> JobRecord:
    record = await room.long_jobs.find(job.id)
    assert record is not None
    return record


def test_the_figures_tell_how_long_the_oldest_job_has_been_waiting(jobs: JobQueue) -> None:
    assert asyncio.run(jobs.figures()).oldest_age_s == 0
    asyncio.run(jobs.tend_campaign("spring"))
    asyncio.run(jobs.tend_campaign("autumn"))
    [oldest, _] = jobs.rq.jobs
    oldest.enqueued_at = datetime.now(UTC) - timedelta(seconds=90)
    oldest.save()
    figures = asyncio.run(jobs.figures())
    assert (figures.name, figures.queued) == ("tidegate", 2)
    assert 90 <= figures.oldest_age_s < 120


def test_a_job_whose_worker_fell_silent_is_done_by_the_next(jobs: JobQueue, store_url: str) -> None:
    in_the_store(store_url, open_and_extend)
    asyncio.run(jobs.write_extension_through("spring", 1))
    take_a_job_and_die(jobs)
    let_time_pass(jobs, SILENT_AFTER_S // 2)
    jobs.revive()
    assert depths(jobs) == {"started": 1}
    let_time_pass(jobs, SILENT_AFTER_S // 2 + 1)
    jobs.revive()
    assert depths(jobs) == {"scheduled": 1}
    let_time_pass(jobs, RETRY_PAUSES_S[0] + 1)
    jobs.revive()
    do_what_waits(jobs)
    assert depths(jobs) == {}
    assert in_the_store(store_url, progress).changed == BATCH


def test_two_schedulers_that_revive_at_once_do_no_harm(jobs: JobQueue, store_url: str) -> None:
    in_the_store(store_url, open_and_extend)
    asyncio.run(jobs.write_extension_through("spring", 1))
    take_a_job_and_die(jobs)
    let_time_pass(jobs, SILENT_AFTER_S + 1)
    with closing(JobQueue(store_url)) as other:
        jobs.revive()
        other.revive()
        let_time_pass(jobs, 2)
        jobs.revive()
        other.revive()
    do_what_waits(jobs)
    assert depths(jobs) == {}
    assert in_the_store(store_url, progress).changed == BATCH


def test_a_job_whose_worker_died_between_two_words_to_the_queue_is_put_back(jobs: JobQueue) -> None:
    asyncio.run(jobs.tend_campaign("spring"))
    take_a_job_and_die(jobs).set_status(TurnStatus.SCHEDULED)
    let_time_pass(jobs, SILENT_AFTER_S + 1)
    jobs.revive()
    assert depths(jobs) == {"scheduled": 1}


def test_it_is_put_back_too_where_a_worker_tidies_before_the_scheduler_looks(jobs: JobQueue) -> None:
    asyncio.run(jobs.tend_campaign("spring"))
    take_a_job_and_die(jobs).set_status(TurnStatus.SCHEDULED)
    let_time_pass(jobs, SILENT_AFTER_S + 1)
    a_worker(jobs).clean_registries()
    assert depths(jobs) == {"scheduled": 1}
    let_time_pass(jobs, RETRY_PAUSES_S[0] + 1)
    jobs.revive()
    assert depths(jobs) == {"queued": 1}


def test_a_job_that_fails_is_tried_again_after_a_pause(jobs: JobQueue, store_url: str) -> None:
    in_the_store(store_url, open_and_extend)
    break_the_coupons(jobs)
    asyncio.run(jobs.write_extension_through("spring", 1))
    do_what_waits(jobs)
    assert depths(jobs) == {"scheduled": 1}
    assert in_the_store(store_url, progress).failure == ""
    mend_the_coupons(jobs)
    let_time_pass(jobs, RETRY_PAUSES_S[0] + 1)
    jobs.revive()
    do_what_waits(jobs)
    assert in_the_store(store_url, progress).status is ExtensionStatus.COMPLETED


def test_a_job_that_fails_for_good_says_why_and_keeps_its_like_away_for_a_while(jobs: JobQueue, store_url: str) -> None:
    in_the_store(store_url, open_and_extend)
    break_the_coupons(jobs)
    asyncio.run(jobs.write_extension_through("spring", 1))
    leave_no_retries(jobs)
    do_what_waits(jobs)
    asyncio.run(jobs.write_extension_through("spring", 1))
    assert depths(jobs) == {"failed": 1}
    failed = in_the_store(store_url, progress)
    assert failed.status is ExtensionStatus.FAILED
    assert failed.failure.startswith("StoreRefused: ")
    assert "WRONGTYPE" in failed.failure
    let_time_pass(jobs, FAILED_FOR_S + 1)
    jobs.revive()
    asyncio.run(jobs.write_extension_through("spring", 1))
    assert depths(jobs) == {"queued": 1}


def test_a_job_that_kills_one_worker_after_the_other_fails_for_good(jobs: JobQueue, store_url: str) -> None:
    in_the_store(store_url, open_and_extend)
    asyncio.run(jobs.write_extension_through("spring", 1))
    leave_no_retries(jobs)
    take_a_job_and_die(jobs)
    let_time_pass(jobs, SILENT_AFTER_S + 1)
    jobs.revive()
    assert depths(jobs) == {"failed": 1}
    assert in_the_store(store_url, progress).failure.startswith("AbandonedJobError")
