"""Long jobs are done in turns: killed before any word to the store, or refused any, they end as if nothing had been."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from functools import partial
from multiprocessing import get_context
from random import Random
from typing import Final

import pytest

from service.domain.extension import Scope
from service.store.catalogue import Catalogue
from service.store.extensions import ExtensionStore
from service.store.imports import ImportStore
from service.store.jobs import JobQueue
from service.store.long_jobs import JobKind, JobRecord, JobStatus, LongJobs, NewJob, extension_job, undo_job
from service.store.recounts import RecountStore
from service.store.scripts import Scripts
from tests.store.desk import LATER, SECRET, Desk, DyingScripts, ProcessDied, Room
from tests.store.records import lose_records
from tests.worker.processes import BATCH, NEXT_WEEK, NOW, in_the_store, open_with_coupons
from worker import jobs as worker_jobs
from worker.kinds import Kinds
from worker.long_work import LongWork
from worker.turns import RECOUNT_EVERY_MS, RECOUNTS_AT_ONCE, Turns

RECOUNT: Final = NewJob("recount-spring-1", JobKind.RECOUNT, "spring", {})
JOBS: Final = {
    JobKind.EXTENSION: extension_job("spring", 1),
    JobKind.UNDO: undo_job("spring", 1),
    JobKind.RECOUNT: RECOUNT,
}
COUPONS: Final = 3_000
MOST_CALLS: Final = 200
EVERYTHING: Final = (extension_job("spring", 1), extension_job("spring", 2), undo_job("spring", 1), RECOUNT)
KILLS: Final = 10
MOST_TURNS: Final = 20
BATCHES: Final = 24
ALL: Final = BATCHES * BATCH
LATEST_KILL_S: Final = 0.12


Work = Callable[[], Awaitable[None]]


def long_work(room: Room, scripts: Scripts | None = None) -> LongWork:
    scripts = scripts or room.scripts
    catalogue, imports = Catalogue(room.client, scripts, SECRET), ImportStore(room.client, scripts)
    kinds = Kinds(catalogue, ExtensionStore(scripts), RecountStore(room.client, scripts), imports)
    return LongWork(LongJobs(room.client, scripts), kinds.all())


def turns(room: Room, jobs: JobQueue) -> Turns:
    return Turns(room.catalogue, room.long_jobs, room.recounts, jobs)


async def a_campaign_with_coupons(room: Room) -> Desk:
    desk = await room.open(max_coupons_per_user=1_000, shards=2)
    for batch in range(COUPONS // 200):
        user = f"user {batch}"
        await desk.issue_batch(((user, f"{number}") for number in range(200)), desk.known.place(user)[0])
    return desk


async def ended(room: Room, job: NewJob) -> JobRecord:
    record = await room.long_jobs.find(job.id)
    assert record is not None
    return record


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [JobKind.EXTENSION, JobKind.UNDO, JobKind.RECOUNT])
async def test_a_job_whose_worker_dies_before_any_one_word_to_the_store_ends_as_if_it_had_not(
    room: Room, kind: JobKind
) -> None:
    desk = await a_campaign_with_coupons(room)
    if kind is not JobKind.RECOUNT:
        await desk.extend(LATER)
    if kind is JobKind.UNDO:
        await desk.undo(1)
    job = JOBS[kind]
    await room.long_jobs.open(job)
    for calls in range(1, MOST_CALLS):
        try:
            await long_work(room, DyingScripts(room.client, calls)).take_turn(job.id)
        except ProcessDied:
            continue
        break
    progress = (await ended(room, job)).progress
    assert (progress.status, progress.done, progress.total) == (JobStatus.COMPLETED, COUPONS, COUPONS)
    assert (await desk.recount()).adds_up
    if kind is not JobKind.RECOUNT:
        written = await room.extensions.progress(desk.campaign, 1)
        assert written is not None
        assert written.changed == COUPONS
        assert written.undo is None or written.undo.shortened == COUPONS


@pytest.mark.anyio
async def test_records_that_do_not_add_up_fail_their_recount_which_names_them(room: Room) -> None:
    await a_campaign_with_coupons(room)
    await lose_records(room.client, "spring", 7, 9)
    await room.long_jobs.open(RECOUNT)
    await long_work(room).take_turn(RECOUNT.id)
    record = await ended(room, RECOUNT)
    assert record.progress.status is JobStatus.FAILED
    assert record.progress.error == (
        "apart by 2 coupons and 5000 CNY in minor units; 2 wrong records (shard:sequence): 0:7 0:9"
    )


@pytest.mark.anyio
async def test_a_job_for_what_is_not_there_fails_and_says_so(room: Room) -> None:
    for job in (RECOUNT, extension_job("spring", 1)):
        await room.long_jobs.open(job)
        await long_work(room).take_turn(job.id)
        record = await ended(room, job)
        assert (record.progress.status, record.progress.error) == (
            JobStatus.FAILED,
            "what it was to be done to is not there",
        )


@pytest.mark.anyio
async def test_open_jobs_get_turns_and_campaigns_are_recounted_again_and_again(jobs: JobQueue, room: Room) -> None:
    desk = await room.open()
    await desk.issue()
    await turns(room, jobs).enqueue_due()
    [job] = await room.long_jobs.open_jobs()
    assert (job.kind, job.campaign_id) == (JobKind.RECOUNT, "spring")
    for _ in range(3):
        await turns(room, jobs).enqueue_due()
    assert jobs.rq.job_ids == [job.id]
    await long_work(room).take_turn(job.id)
    await turns(room, jobs).enqueue_due()
    assert await room.long_jobs.open_jobs() == []
    await room.clock.advance(RECOUNT_EVERY_MS)
    await turns(room, jobs).enqueue_due()
    assert [record.kind for record in await room.long_jobs.open_jobs()] == [JobKind.RECOUNT]


@pytest.mark.anyio
async def test_few_campaigns_are_recounted_at_once_and_each_has_its_turn(jobs: JobQueue, room: Room) -> None:
    names = {f"autumn-{number}" for number in range(RECOUNTS_AT_ONCE + 2)}
    for name in names:
        await room.open(id=name, code_prefix=name.replace("-", "").upper())
    rounds, seen = turns(room, jobs), set()
    for _ in range(3):
        await rounds.enqueue_due()
        waiting = await room.long_jobs.open_jobs()
        assert len(waiting) <= RECOUNTS_AT_ONCE
        for job in waiting:
            seen.add(job.campaign_id)
            await long_work(room).take_turn(job.id)
    assert seen == names


def test_workers_that_are_killed_at_any_moment_leave_work_that_the_next_ones_end(
    jobs: JobQueue, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del jobs
    monkeypatch.setenv("TIDEGATE_STORE_URL", store_url)
    dice = Random(5)
    in_the_store(store_url, begin_everything)
    turns_at_all = [partial(worker_jobs.work_on, job.id) for job in EVERYTHING]
    works: list[Work] = [*turns_at_all, partial(worker_jobs.tend_campaign, "autumn")]
    for _ in range(KILLS):
        for work in works:
            kill_soon(work, dice.uniform(0, LATEST_KILL_S))
    for work in works:
        for _ in range(MOST_TURNS):
            asyncio.run(work())  # type: ignore[arg-type]  # they are coroutines
    in_the_store(store_url, all_is_done)


async def begin_everything(room: Room) -> None:
    """Extensions of all coupons and of two users', the undoing of the first, a recount; and coupons that are over."""
    desk = await open_with_coupons(room, BATCHES)
    await desk.extend(NEXT_WEEK)
    await desk.extend(NEXT_WEEK + 1, scope=Scope(user_ids=("user 3-7", "user 20-0")))
    await desk.undo(1)
    for job in EVERYTHING:
        await room.long_jobs.open(job)
    await open_with_coupons(room, BATCHES, until_ms=NOW + 1, id="autumn", code_prefix="AUTUMN")


async def all_is_done(room: Room) -> None:
    records = [await ended(room, job) for job in EVERYTHING]
    for record in records:
        assert record.progress.status is JobStatus.COMPLETED
        assert record.progress.done == record.progress.total == ALL
    assert sum(record.turn for record in records) > len(records)
    campaign, autumn = await room.catalogue.load("spring"), await room.catalogue.load("autumn")
    assert campaign is not None
    assert autumn is not None
    first, second = [await room.extensions.progress(campaign, number) for number in (1, 2)]
    assert first is not None
    assert first.undo is not None
    assert second is not None
    assert (first.changed, second.changed, first.undo.shortened) == (ALL, 2, ALL - 2)
    recount = await room.recounts.latest(campaign)
    assert recount is not None
    assert recount.adds_up
    assert (await room.catalogue.ledger(autumn)).counters.expired == ALL
    events = await room.events("autumn")
    assert sorted(n for event in events if event.type == "coupon.expired" for n in event.coupons) == list(range(ALL))


def kill_soon(work: Work, after_s: float) -> None:
    """Do the work in a process of its own, as a worker would, and end that as a power cut would."""
    process = get_context("fork").Process(target=_work, args=(work,))
    process.start()
    process.join(after_s)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)


def _work(work: Work) -> None:
    asyncio.run(work())  # type: ignore[arg-type]  # they are coroutines
