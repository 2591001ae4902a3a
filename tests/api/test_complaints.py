"""What the store says went wrong stands in the log: in its own words, not too often, and without what was asked."""

from collections.abc import AsyncIterator
from typing import Final

import pytest
from structlog.typing import EventDict

from service.api.app import fastapi_lane
from service.api.complaints import EVERY_S, Complaints, words_of
from service.api.parts import Parts
from service.gate.signals import BatchReport, Failure
from service.store.client import connect
from service.store.scripts import StoreError, store_errors
from tests.api.caller import Caller, refusal, settings
from tests.store.server import StoreServer

pytestmark = pytest.mark.anyio

BATCHES: Final[list[tuple[str, Failure | None]]] = [
    ("issue", "error"),
    ("redeem", "error"),
    ("issue", "timeout"),
    ("issue", None),
]


@pytest.fixture
async def api_of_full_store(own_store: StoreServer) -> AsyncIterator[Caller]:
    """A running campaign over a store that takes nothing more."""
    parts = Parts(settings(own_store.url))
    async with parts.running(), Caller(fastapi_lane(parts)) as api, connect(own_store.url, 1_000) as client:
        await api.open(validity={"timezone": "UTC", "duration": "P7D"})
        await api.code("somebody-else")
        await client.config_set("maxmemory", 1)
        yield api


async def test_a_batch_that_the_store_refuses_is_logged_once_with_the_reason(
    api_of_full_store: Caller, log: list[EventDict]
) -> None:
    assert refusal(await api_of_full_store.issue("ann-of-the-hills", "her-own-key")) == (503, "store_unavailable")
    (line,) = [line for line in log if line["event"] == "the store refused a batch"]
    assert (line["log_level"], line["verb"], line["campaign"]) == ("warning", "issue", "spring")
    assert line["error"].startswith("OOM ")
    assert "request_id" not in line
    assert "ann-of-the-hills" not in str(log)
    assert "her-own-key" not in str(log)


async def test_whatever_else_the_store_refuses_is_logged_under_the_requests_id(
    api_of_full_store: Caller, log: list[EventDict]
) -> None:
    answer = await api_of_full_store.deactivate(await api_of_full_store.code("somebody-else"))
    assert refusal(answer) == (503, "store_unavailable")
    (line,) = [line for line in log if line["event"] == "the store failed a request"]
    assert (line["log_level"], line["request_id"]) == ("warning", answer.headers["x-request-id"])
    assert "maxmemory" in line["error"]


def test_a_stampede_does_not_flood_the_log(log: list[EventDict]) -> None:
    now_s = 1_000.0
    complaints = Complaints(lambda: now_s)
    for _ in range(3):
        for _ in range(100):
            for verb, failure in BATCHES:
                complaints.observe(BatchReport(verb, 1, 0.0, 0.0, failure, "spring", 0.0, "OOM too full"))
        now_s += EVERY_S
    assert [line["verb"] for line in log] == ["issue", "redeem"] * 3


async def test_what_valkey_repeats_of_a_command_is_left_out(own_store: StoreServer) -> None:
    async with connect(own_store.url, 1_000) as client:
        with pytest.raises(StoreError, match="ann-of-the-hills") as refused, store_errors():
            await client.execute_command("HOARD", "ann-of-the-hills")  # type: ignore[no-untyped-call]  # redis's own
    assert words_of(str(refused.value)) == "unknown command 'HOARD'"
    assert len(words_of("ERR " + "x" * 5_000)) == 100
