"""Long jobs over HTTP: what is under way, how far it is, and what is not there."""

from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from typing import Any, Final

import pytest

from service.api.parts import Parts
from service.store.jobs import DONE_FOR_S, JobQueue
from service.store.long_jobs import JobProgress, JobStatus
from tests.api.caller import Caller, refusal
from tests.store.desk import Room
from tests.worker.processes import BATCH, NEXT_WEEK, NOW, open_with_coupons
from tests.worker.test_jobs import break_the_coupons, do_what_waits, leave_no_retries, let_time_pass, mend_the_coupons
from tests.worker.test_long_work import kill_soon, long_work
from worker import jobs as worker_jobs
from worker import kinds

pytestmark = pytest.mark.anyio

BATCHES: Final = 12
MOST_KILLS: Final = 100
LIVES_LONGER_BY_S: Final = 0.02
PENDING = {
    "id": "extension-spring-1",
    "kind": "extension",
    "campaign_id": "spring",
    "status": "pending",
    "total": 0,
    "done": 0,
    "started_at": None,
    "finished_at": None,
    "error": None,
}


async def test_an_extension_is_a_job_from_the_moment_it_is_answered(api: Caller, room: Room) -> None:
    assert (await api.http.get("/v1/jobs")).json() == {"jobs": []}
    await api.open()
    await api.extend()
    assert (await api.http.get("/v1/jobs/extension-spring-1")).json() == PENDING
    record = await room.long_jobs.begin("extension-spring-1")
    assert record is not None
    await room.long_jobs.advance(record, JobProgress(2, 3, error="StoreTimeout: 3 s"))
    running = PENDING | {
        "status": "running",
        "total": 3,
        "done": 2,
        "started_at": "2026-02-05T23:46:00.000+00:00",
        "error": "StoreTimeout: 3 s",
    }
    assert (await api.http.get("/v1/jobs")).json() == {"jobs": [running]}
    await room.clock.advance(1)
    await room.long_jobs.advance(record, JobProgress(3, 3, JobStatus.COMPLETED))
    ended = {"status": "completed", "done": 3, "finished_at": "2026-02-05T23:46:00.001+00:00", "error": None}
    assert (await api.http.get("/v1/jobs")).json() == {"jobs": [running | ended]}


async def test_an_undoing_is_a_job_with_progress_that_ends_whoever_is_killed(
    api: Caller, room: Room, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_STORE_URL", store_url)
    monkeypatch.setattr(kinds, "STEP_S", 0)
    await room.clock.set(NOW)
    await open_with_coupons(room, BATCHES)
    await api.extend(datetime.fromtimestamp(NEXT_WEEK / 1000, UTC).isoformat())
    await long_work(room).take_turn("extension-spring-1")
    await room.clock.advance(1)
    assert (await api.undo("spring.1")).json()["status"] == "undoing"
    assert (await look(api, "/v1/jobs"))["jobs"][0]["id"] == "undo-spring-1"
    done = [0]
    for kill in range(MOST_KILLS):
        # Each worker lives a little longer, so that the work ends on a slow machine too.
        kill_soon(partial(worker_jobs.write_undo_through, "spring", 1), kill * LIVES_LONGER_BY_S)
        job = await look(api, "/v1/jobs/undo-spring-1")
        extension = await look(api, "/v1/extensions/spring.1")
        assert done[-1] <= job["done"] <= extension["undo"]["done"] <= BATCHES * BATCH
        assert (await look(api, "/v1/jobs/extension-spring-1"))["status"] == "completed"
        if job["status"] == "completed":
            break
        done.append(job["done"])
    assert len(set(done)) > 1
    assert (job["kind"], job["done"], job["total"]) == ("undo", BATCHES * BATCH, BATCHES * BATCH)
    assert job["finished_at"] is not None
    assert (extension["status"], extension["undo"]["shortened"]) == ("undone", BATCHES * BATCH)


async def test_a_job_and_its_extension_agree_whichever_turn_fails_and_whoever_does_the_work_in_the_end(
    api: Caller, parts: Parts, room: Room, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_STORE_URL", store_url)
    await room.clock.set(NOW)
    await open_with_coupons(room, batches=1)
    await api.extend(datetime.fromtimestamp(NEXT_WEEK / 1000, UTC).isoformat())
    with monkeypatch.context() as in_a_hurry:
        in_a_hurry.setattr(kinds, "TURN_S", 0)
        take_turns(parts.jobs)
    assert await statuses(api, 1) == ("running", "pending")

    let_time_pass(parts.jobs, DONE_FOR_S)
    await parts.jobs.work_on("extension-spring-1")
    leave_no_retries(parts.jobs)
    break_the_coupons(parts.jobs)
    take_turns(parts.jobs)
    assert await statuses(api, 1) == ("failed", "failed")
    assert "WRONGTYPE" in (await look(api, "/v1/jobs/extension-spring-1"))["error"]

    mend_the_coupons(parts.jobs)
    await api.extend(datetime.fromtimestamp(NEXT_WEEK / 1000 + 1, UTC).isoformat())
    take_turns(parts.jobs)
    assert [await statuses(api, number) for number in (1, 2)] == [("completed", "completed")] * 2
    assert {(job["status"], job["done"], job["error"]) for job in (await look(api, "/v1/jobs"))["jobs"]} == {
        ("completed", BATCH, None)
    }


def take_turns(jobs: JobQueue) -> None:
    """Have a worker do what waits: in a process of its own, since RQ wants the main thread, and no event loop in it."""
    worker = get_context("fork").Process(target=do_what_waits, args=(jobs,))
    worker.start()
    worker.join()
    assert worker.exitcode == 0


async def statuses(api: Caller, number: int) -> tuple[str, str]:
    """Of the job and of the extension."""
    job = await look(api, f"/v1/jobs/extension-spring-{number}")
    return job["status"], (await look(api, f"/v1/extensions/spring.{number}"))["status"]


async def look(api: Caller, path: str) -> dict[str, Any]:
    answer = await api.http.get(path)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("name", ["extension-spring-2", "x" * 5_000, "%00", "..", "extension-spring-1%0A", "é"])
async def test_a_job_that_nobody_has_opened_is_not_found(api: Caller, name: str) -> None:
    await api.open()
    await api.extend()
    assert refusal(await api.http.get(f"/v1/jobs/{name}")) == (404, "not_found")


async def test_a_job_is_looked_at_and_nothing_else(api: Caller) -> None:
    for method in ("POST", "PUT", "DELETE"):
        for path in ("/v1/jobs", "/v1/jobs/extension-spring-1"):
            assert refusal(await api.http.request(method, path)) == (405, "method_not_allowed")
