"""A long job has one record and one instance; it is listed while it lasts and remembered for a while."""

import pytest

from service.store import long_jobs
from service.store.long_jobs import (
    KEPT_OF_A_KIND,
    JobKind,
    JobProgress,
    JobRecord,
    JobStatus,
    NewJob,
    TooManyJobs,
    extension_job,
)
from tests.store.desk import LAUNCH, Room

pytestmark = pytest.mark.anyio

HALF = JobProgress(5, 10, checkpoint="five")
WHOLE = JobProgress(10, 10, JobStatus.COMPLETED)
JOB = extension_job("spring", 1)


def a_recount(number: int) -> NewJob:
    return NewJob(f"recount-spring-{number}", JobKind.RECOUNT, "spring", {})


async def begin(room: Room, job_id: str = JOB.id) -> JobRecord:
    begun = await room.long_jobs.begin(job_id)
    assert begun is not None
    return begun


async def test_a_job_is_pending_until_somebody_begins_it(room: Room) -> None:
    await room.long_jobs.open(JOB)
    pending = await room.long_jobs.find(JOB.id)
    expected = JobRecord(
        "extension-spring-1",
        JobKind.EXTENSION,
        "spring",
        {"number": 1},
        0,
        JobProgress(0, 0, JobStatus.PENDING),
        LAUNCH,
        None,
        None,
    )
    assert pending == expected
    await room.clock.advance(1_000)
    running = await begin(room)
    assert (running.turn, running.started_at_ms, running.progress.status) == (1, LAUNCH + 1_000, JobStatus.RUNNING)


async def test_opening_a_job_twice_changes_nothing(room: Room) -> None:
    await room.long_jobs.open(JOB)
    await room.long_jobs.advance(await begin(room), HALF)
    before = await room.everything()
    await room.long_jobs.open(JOB)
    assert await room.everything() == before


async def test_a_later_turn_goes_on_from_the_checkpoint_and_silences_the_earlier(room: Room) -> None:
    await room.long_jobs.open(JOB)
    dead = await begin(room)
    assert await room.long_jobs.advance(dead, HALF)
    heir = await begin(room)
    assert (heir.turn, heir.progress, heir.started_at_ms) == (2, HALF, dead.started_at_ms)
    before = await room.everything()
    assert not await room.long_jobs.advance(dead, WHOLE)
    assert await room.everything() == before
    assert await room.long_jobs.advance(heir, WHOLE)


async def test_a_job_that_has_ended_is_not_begun_again_but_one_that_failed_may_be_opened_again(room: Room) -> None:
    await room.long_jobs.open(JOB)
    failed = JobProgress(5, 10, JobStatus.FAILED, "five", "out of luck")
    await room.long_jobs.advance(await begin(room), failed)
    assert await room.long_jobs.open_jobs() == []
    assert [job.progress for job in await room.long_jobs.latest(10)] == [failed]
    assert await room.long_jobs.begin(JOB.id) is None
    await room.long_jobs.open(JOB)
    again = await begin(room)
    assert (again.finished_at_ms, again.progress.status, again.progress.checkpoint) == (None, JobStatus.RUNNING, "five")
    assert [job.id for job in await room.long_jobs.open_jobs()] == [JOB.id]
    await room.long_jobs.advance(again, WHOLE)
    await room.long_jobs.open(JOB)
    assert await room.long_jobs.begin(JOB.id) is None
    assert await room.long_jobs.begin("never-heard-of") is None
    ended = await room.long_jobs.find(JOB.id)
    assert ended is not None
    assert (ended.finished_at_ms, ended.progress) == (LAUNCH, WHOLE)


async def test_jobs_are_listed_the_newest_first_whether_they_have_ended_or_not(room: Room) -> None:
    for number in range(4):
        await room.clock.advance(1)
        await room.long_jobs.open(a_recount(number))
    await room.long_jobs.advance(await begin(room, a_recount(2).id), WHOLE)
    names = [a_recount(number).id for number in (3, 2, 1, 0)]
    assert [job.id for job in await room.long_jobs.latest(10)] == names
    assert [job.id for job in await room.long_jobs.latest(2)] == names[:2]
    assert [job.id for job in await room.long_jobs.open_jobs()] == [names[3], names[2], names[0]]


async def test_only_the_latest_of_a_kind_are_remembered(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_jobs, "KEPT_OF_A_KIND", 3)
    await room.long_jobs.open(JOB)
    await room.long_jobs.advance(await begin(room), WHOLE)
    for number in range(5):
        await room.clock.advance(1)
        await room.long_jobs.open(a_recount(number))
        await room.long_jobs.advance(await begin(room, a_recount(number).id), WHOLE)
    kept = [job.id for job in await room.long_jobs.latest(KEPT_OF_A_KIND)]
    assert kept == [a_recount(4).id, a_recount(3).id, a_recount(2).id, JOB.id]
    assert len([name for name in await room.key_names() if name.startswith(b"tg:{jobs}:job:")]) == 4


async def test_there_is_an_end_to_how_many_jobs_may_be_open(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_jobs, "MAX_OPEN", 2)
    for number in range(2):
        await room.long_jobs.open(a_recount(number))
    before = await room.everything()
    with pytest.raises(TooManyJobs):
        await room.long_jobs.open(JOB)
    assert await room.everything() == before
    await room.long_jobs.advance(await begin(room, a_recount(0).id), WHOLE)
    await room.long_jobs.open(JOB)


async def test_an_error_is_bounded_and_a_name_that_is_too_long_is_nobodys(room: Room) -> None:
    await room.long_jobs.open(JOB)
    await room.long_jobs.advance(await begin(room), JobProgress(0, 0, error="x" * 10_000))
    found = await room.long_jobs.find(JOB.id)
    assert found is not None
    assert len(found.progress.error) == long_jobs.LONGEST_ERROR
    assert await room.long_jobs.find("x" * 10_000) is None
    assert await room.long_jobs.find("") is None


async def test_what_a_newer_tidegate_has_opened_is_passed_over(room: Room) -> None:
    await room.long_jobs.open(JOB)
    await room.client.hset("tg:{jobs}:job:extension-spring-1", "kind", "time-travel")
    assert await room.long_jobs.latest(10) == await room.long_jobs.open_jobs() == []
