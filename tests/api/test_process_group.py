"""A group of processes serves its own calls, sends the others elsewhere in clear words, and votes on what it guards."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from service.api.app import create_app
from service.api.leadership import SHARED_METRICS
from service.api.parts import Parts
from service.api.process_group import group_of
from service.settings import Group
from service.store.keys import BREAKER_BALLOTS
from tests.api.caller import Caller, contents, refusal, serving, settings
from tests.api.process import ApiProcess, running_api
from tests.api.test_documents import CONTRACT, OTHER_PATHS
from tests.api.test_metrics import value
from tests.store.desk import TURNABLE_CLOCK, Room

pytestmark = pytest.mark.anyio

REDEMPTION = {
    "/v1/coupons/{code}/redemptions",
    "/v1/redemptions/{redemption_id}/commit",
    "/v1/redemptions/{redemption_id}/release",
    "/v1/redemptions/{redemption_id}/rollback",
    "/v1/merchants/{merchant_id}/busy",
}
BOTH = {"/v1/coupons/{code}", "/metrics", "/livez", "/readyz", "/docs", "/openapi.json"}


def test_every_call_of_the_contract_belongs_to_one_group_or_to_both() -> None:
    paths = {entry[0] for entry in CONTRACT} | OTHER_PATHS | BOTH
    assert {path for path in paths if group_of(path) == "redeem"} == REDEMPTION
    assert {path for path in paths if group_of(path) is None} == BOTH


async def test_each_group_serves_its_calls_and_sends_the_others_elsewhere(room: Room, store_url: str) -> None:
    issuing, redeeming = (create_app(settings(store_url, serve_only=only)) for only in ("issue", "redeem"))
    async with serving(issuing), serving(redeeming), Caller(issuing) as desk, Caller(redeeming) as till:
        # These serve by the store's own clock, so their coupons must not have expired.
        await desk.open(validity={"timezone": "Asia/Shanghai", "duration": "P7D"})
        code = await desk.code()
        before = await contents(room)
        assert refusal(await desk.redeem(code)) == (421, "not_served_here")
        assert refusal(await till.issue("bob")) == (421, "not_served_here")
        assert refusal(await till.tell("pause")) == (421, "not_served_here")
        assert refusal(await till.override("forced_open")) == (421, "not_served_here")
        assert await contents(room) == before
        assert (await till.coupon(code)) == (await desk.coupon(code))
        redeemed = await till.redeem(code)
        assert (redeemed.status_code, (await till.settle("rollback", redeemed.json()["id"])).status_code) == (201, 200)
        for caller in (desk, till):
            for path in ("/livez", "/readyz", "/metrics", "/docs", "/docs/swagger-ui.css", "/openapi.json"):
                assert (await caller.http.get(path)).status_code == 200, path


@pytest.mark.parametrize(("only", "voters"), [(None, 1), ("issue", 1), ("redeem", 0)])
async def test_who_does_not_issue_has_no_vote_on_when_to_pause(
    room: Room, store_url: str, only: Group | None, voters: int
) -> None:
    parts = Parts(settings(store_url, serve_only=only), TURNABLE_CLOCK)
    async with parts.running():
        assert await room.client.hlen(BREAKER_BALLOTS) == voters


async def test_who_does_not_issue_reports_no_breaker(room: Room, store_url: str) -> None:
    del room
    app = create_app(settings(store_url, serve_only="redeem"))
    async with serving(app), Caller(app) as till:
        said = await till.metrics()
    assert "tidegate_store_up 1.0" in said
    assert "tidegate_breaker_state" not in said


async def test_what_two_processes_hear_of_the_breaker_is_counted_once(
    room: Room, store_url: str, tmp_path: Path
) -> None:
    del room
    counts = {SHARED_METRICS: str(tmp_path)}
    with (
        running_api(store_url, tmp_path / "one.log", **counts) as one,
        running_api(store_url, tmp_path / "other.log", **counts) as other,
    ):
        async with operator(one) as here, operator(other) as there:
            await here.override("forced_closed")
            async with there.http.stream("GET", "/v1/status/stream") as stream:
                await here.override("forced_open")
                await anext(line async for line in stream.aiter_lines() if '"paused"' in line)
            for caller in (here, there):
                said = await caller.metrics()
                assert value(said, "breaker_transitions_total", reason="operator", to="open") == 1


@asynccontextmanager
async def operator(api: ApiProcess) -> AsyncIterator[Caller]:
    """Somebody in front of that process."""
    async with httpx.AsyncClient(base_url=api.url, timeout=10, trust_env=False) as http:
        yield Caller.over(http)
