"""Long jobs over HTTP: what is under way, how far it is, and what is not there."""

import pytest

from service.store.long_jobs import JobProgress, JobStatus
from tests.api.caller import Caller, refusal
from tests.store.desk import Room

pytestmark = pytest.mark.anyio

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


@pytest.mark.parametrize("name", ["extension-spring-2", "x" * 5_000, "%00", "..", "extension-spring-1%0A", "é"])
async def test_a_job_that_nobody_has_opened_is_not_found(api: Caller, name: str) -> None:
    await api.open()
    await api.extend()
    assert refusal(await api.http.get(f"/v1/jobs/{name}")) == (404, "not_found")


async def test_a_job_is_looked_at_and_nothing_else(api: Caller) -> None:
    for method in ("POST", "PUT", "DELETE"):
        for path in ("/v1/jobs", "/v1/jobs/extension-spring-1"):
            assert refusal(await api.http.request(method, path)) == (405, "method_not_allowed")
