"""An import whose worker is killed at any moment is published whole, and before that nothing of it is seen."""

import asyncio
from functools import partial
from random import Random
from typing import Final

import pytest

from service.domain.campaign import CampaignStatus
from service.store.imports import PAGE
from service.store.jobs import JobQueue
from service.store.long_jobs import JobProgress, JobStatus, NewJob, import_job
from tests.store.desk import Room
from tests.worker.processes import NOW, in_the_store
from tests.worker.test_long_work import LATEST_KILL_S, ended, kill_soon, long_work
from worker import jobs as worker_jobs
from worker.importing import WHOSE

CODES: Final = [f"QWEN-{number * 7_919 % 1_000_003:07}" for number in range(5 * PAGE + 1)]
KILLS: Final = 25
MOST_TURNS: Final = 20


def test_an_import_whose_worker_is_killed_at_any_moment_is_whole_or_not_there(
    jobs: JobQueue, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del jobs
    monkeypatch.setenv("TIDEGATE_STORE_URL", store_url)
    dice = Random(7)
    job = in_the_store(store_url, send)
    for _ in range(KILLS):
        kill_soon(partial(worker_jobs.work_on, job.id), dice.uniform(0, LATEST_KILL_S))
        in_the_store(store_url, whole_or_not_there)
    for _ in range(MOST_TURNS):
        asyncio.run(worker_jobs.work_on(job.id))
    in_the_store(store_url, partial(all_is_published, job=job))


async def send(room: Room) -> NewJob:
    await room.open(status=CampaignStatus.DRAFT, imported_codes=0, max_coupons=len(CODES), created_at_ms=NOW)
    lines = [code.encode() for code in CODES]
    pages = range(0, len(lines), PAGE)
    for page, first in enumerate(pages):
        await room.imports.add_lines("spring", "a", page, lines[first : first + PAGE])
    job = import_job("spring", "a", len(lines), len(pages), 0)
    await room.long_jobs.open(job)
    return job


async def whole_or_not_there(room: Room) -> None:
    known = await room.catalogue.find("spring")
    assert known is not None
    if known.campaign.imported_codes:
        assert [known.codes.code(0, sequence) for sequence in range(len(CODES))] == CODES
    else:
        assert await room.catalogue.find_coupon(CODES[0]) is None


async def all_is_published(room: Room, job: NewJob) -> None:
    record = await ended(room, job)
    assert record.progress.status is JobStatus.COMPLETED
    known = await room.catalogue.find("spring")
    assert known is not None
    assert known.campaign.imported_codes == len(CODES)
    await whole_or_not_there(room)
    for sequence in (0, 1, PAGE - 1, PAGE, len(CODES) - 1):
        found = await room.catalogue.find_coupon(CODES[sequence])
        assert found is not None
        assert found[1].sequence == sequence
    assert [name for name in await room.key_names() if b":import:" in name] == []


@pytest.mark.anyio
@pytest.mark.parametrize(("first", "second"), [("AC", "ACME"), ("ACME", "AC")])
async def test_no_code_is_of_two_campaigns(room: Room, first: str, second: str) -> None:
    assert (await imported(room, first)).status is JobStatus.COMPLETED
    refused = await imported(room, second)
    assert (refused.status, refused.error) == (JobStatus.FAILED, f"code_prefix {second} overlaps {first}: {WHOSE}")
    found = await room.catalogue.find_coupon("ACME-0001")
    assert found is not None
    assert found[0].campaign.code_prefix == first
    waiting = await room.catalogue.load(second.lower())
    assert waiting is not None
    assert waiting.imported_codes == 0


async def imported(room: Room, prefix: str) -> JobProgress:
    """What came of importing one code into a new campaign."""
    campaign = prefix.lower()
    await room.open(id=campaign, code_prefix=prefix, status=CampaignStatus.DRAFT, imported_codes=0)
    await room.imports.add_lines(campaign, "a", 0, [b"ACME-0001"])
    job = import_job(campaign, "a", 1, 1, 0)
    await room.long_jobs.open(job)
    await long_work(room).take_turn(job.id)
    return (await ended(room, job)).progress
