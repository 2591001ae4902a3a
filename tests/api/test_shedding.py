"""An overloaded process sheds by class: newcomers first and unread, then whoever holds a ticket, redemption last."""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from service.api.app import fastapi_lane
from service.api.parts import Parts
from service.gate.meters import Line
from tests.api.caller import Caller, refusal, settings
from tests.api.corpus import issue
from tests.api.exchange import served
from tests.store.desk import TURNABLE_CLOCK, Room
from tests.store.server import StoreServer

pytestmark = pytest.mark.anyio

MAX_WAITING = 16
NEWCOMERS = 14
"""The places that newcomers may take: a line of 16 keeps two."""
PATIENCE_MS = 20_000
SHED = re.compile(r'tidegate_shed_total\{class="(\w+)"\} (\d+)')


@asynccontextmanager
async def hanging(room: Room) -> AsyncIterator[None]:
    """The store gives no answer for as long as the block lasts."""
    process: int = (await room.client.info("server"))["process_id"]
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@pytest.fixture
def store_url(own_store: StoreServer) -> str:
    return own_store.url


@pytest.fixture
async def parts(room: Room, store_url: str) -> AsyncIterator[Parts]:
    """The parts of an API that the test alone keeps at work, so that nothing but its requests asks the store."""
    del room
    bounds = {"max_waiting": MAX_WAITING, "max_batch": 1, "store_timeout_ms": PATIENCE_MS, "max_wait_ms": PATIENCE_MS}
    parts = Parts(settings(store_url, group_commit=bounds), TURNABLE_CLOCK)
    await parts.breaker.tick()
    yield parts
    async with parts.running():
        pass


async def called(api: Caller, parts: Parts, room: Room, users: Iterable[str]) -> dict[str, bytes]:
    """A ticket for each, once it has been called."""
    await api.tell("pause")
    taken = {user: await api.http.post("/v1/campaigns/spring/tickets", json={"user_id": user}) for user in users}
    await api.tell("resume")
    for _ in range(4):
        await room.clock.advance(500)
        await parts.waiting_rooms.tick()
    return {user: answer.json()["ticket"].encode() for user, answer in taken.items()}


async def comes_back(api: Caller, user: str, ticket: bytes) -> httpx.Response:
    headers = {b"idempotency-key": b"first", b"tidegate-ticket": ticket}
    return await api.http.post("/v1/campaigns/spring/coupons", json={"user_id": user}, headers=headers)


async def in_flight(line: Callable[[], list[Line]], number: int) -> None:
    """Let everybody go on until so many wait for the store."""
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while sum(each.in_flight for each in line()) < number:
        assert time.monotonic() < deadline, line()
        await asyncio.sleep(0.001)


async def shed(api: Caller) -> dict[str, int]:
    return {whom: int(number) for whom, number in SHED.findall(await api.metrics())}


async def test_newcomers_are_shed_first_then_ticket_holders_and_redemption_by_its_own_line_only(
    room: Room, parts: Parts, tmp_path: Path
) -> None:
    async with Caller(fastapi_lane(parts)) as api, served(parts, tmp_path / "lane", True) as lane:
        await api.open()
        codes = [await api.code(f"holder-{number}") for number in range(2)]
        tickets = await called(api, parts, room, ["ann", "bob", "eve", "zoe"])
        async with hanging(room):
            pending = [asyncio.create_task(api.issue("under-way"))]
            await in_flight(parts.issuing.lines, 1)
            pending += [asyncio.create_task(api.issue(f"new-{number}")) for number in range(NEWCOMERS)]
            await in_flight(parts.issuing.lines, NEWCOMERS + 1)
            turned_away = await api.http.post("/v1/campaigns/spring/coupons", content=b"not even JSON")
            assert refusal(turned_away) == (503, "overloaded"), "whoever is shed is not read"
            assert 1 <= int(turned_away.headers["retry-after"]) <= 4
            assert b'"reason":"overloaded"' in await lane.answer_to(issue())
            pending += [asyncio.create_task(comes_back(api, user, tickets[user])) for user in ("ann", "bob")]
            await in_flight(parts.issuing.lines, MAX_WAITING + 1)
            too_late = await comes_back(api, "eve", tickets["eve"])
            assert refusal(too_late) == (503, "overloaded"), "the line is full, kept places and all"
            pending += [asyncio.create_task(api.redeem(code)) for code in codes]
            await in_flight(parts.redeeming.lines, len(codes))
            assert not any(task.done() for task in pending), "whoever was let in is kept"
            assert (await api.http.get("/v1/status")).status_code == 200
        assert {answer.status_code for answer in await asyncio.gather(*pending)} == {201}
        parts.breaker.sheds_newcomers = True
        assert refusal(await api.issue("late")) == (503, "overloaded"), (
            "a loop that runs late sheds as a full line does"
        )
        assert (await comes_back(api, "zoe", tickets["zoe"])).status_code == 201
        assert await shed(api) == {"newcomer": 3, "ticket_holder": 1, "redemption": 0}


async def test_redemption_is_shed_when_its_own_line_is_full_and_not_before(room: Room, parts: Parts) -> None:
    async with Caller(fastapi_lane(parts)) as api:
        await api.open()
        codes = [await api.code(f"holder-{number}") for number in range(MAX_WAITING + 2)]
        async with hanging(room):
            redeeming = [asyncio.create_task(api.redeem(codes[0]))]
            await in_flight(parts.redeeming.lines, 1)
            redeeming += [asyncio.create_task(api.redeem(code)) for code in codes[1:-1]]
            await in_flight(parts.redeeming.lines, MAX_WAITING + 1)
            assert refusal(await api.redeem(codes[-1])) == (503, "overloaded")
            issuing = asyncio.create_task(api.issue())
            await in_flight(parts.issuing.lines, 1)
        assert {answer.status_code for answer in await asyncio.gather(*redeeming, issuing)} == {201}
        assert await shed(api) == {"newcomer": 0, "ticket_holder": 0, "redemption": 1}
