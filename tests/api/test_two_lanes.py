"""Issue and redeem get the same answer, byte for byte, whether the fast lane gives it or FastAPI does."""

import random
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.typing import EventDict

from service.api import refusals, spelling
from service.api.app import fastapi_lane
from service.api.parts import Parts
from service.gate.circuits import Circuits
from service.store import coupons
from service.store.client import connect
from tests.api.caller import Caller, settings
from tests.api.corpus import ANN, COUPONS, STORIES, Step, issue, redeem
from tests.api.exchange import LAST, Ask, Lane, served
from tests.store.desk import LAUNCH, TURNABLE_CLOCK, Clock, Room
from tests.store.server import StoreServer

pytestmark = pytest.mark.anyio

PAUSE: Final = re.compile(rb'retry-after: \d+\r\n(.*"paused_by":)', re.DOTALL)
OWN_ID: Final = re.compile(rb"x-request-id: [0-9a-f]{8}-[0-9a-f]+\r\n")
"""What is no HTTP tells no id, and is answered under a new one."""


@asynccontextmanager
async def lane(url: str, folder: Path, front: bool) -> AsyncIterator[tuple[Lane, Caller]]:
    """One lane, and an operator whose requests do not depend on it."""
    parts = Parts(settings(url), TURNABLE_CLOCK)
    async with (
        parts.running(),
        Caller(fastapi_lane(parts)) as operator,
        served(parts, folder / f"lane-{front}", front) as reached,
    ):
        yield reached, operator


async def told(
    room: Room, url: str, folder: Path, front: bool, changes: dict[str, Any], steps: Sequence[Step]
) -> list[bytes]:
    """What one lane answers to a story, from an empty store on."""
    await room.client.flushall()
    await room.clock.set(LAUNCH)
    answers = []
    async with lane(url, folder, front) as (reached, operator):
        await operator.open(**changes)
        for step in steps:
            if isinstance(step, int):
                await room.clock.advance(step)
                continue
            # When to come back after a pause depends on real time, and on chance that the breaker takes part in.
            answers.append(OWN_ID.sub(b"", PAUSE.sub(rb"\1", await reached.answer_to(step))))
    return answers


@pytest.mark.parametrize("named", STORIES)
async def test_both_lanes_answer_alike(
    room: Room, store_url: str, tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where chance decides when a caller should come back, it decides alike.
    monkeypatch.setattr(random, "random", lambda: 0.5)
    # Between two words of the store its time is reckoned on by a clock of the process, which must stand still as well.
    monkeypatch.setattr(Circuits, "_own_ms", lambda _: 0)
    if named == "too_many_attempts":
        monkeypatch.setattr(coupons, "MAX_ATTEMPTS", 1)
    changes, steps = STORIES[named]
    fast = await told(room, store_url, tmp_path, True, changes, steps)
    slow = await told(room, store_url, tmp_path, False, changes, steps)
    for ask, ours, theirs in zip([step for step in steps if isinstance(step, Ask)], fast, slow, strict=True):
        assert ours == theirs, ask
        assert b" 500 " not in ours.partition(b"\r\n")[0], ask
    assert any(b'"reason":"%b"' % named.encode() in answer for answer in fast)


SHAPES = {
    "kept alive": [*issue().spelled(), *issue("bob").spelled(), *issue().spelled(), LAST],
    "pipelined": [b"".join([*issue().spelled(), *issue("bob").spelled(), *redeem().spelled(), LAST])],
    "pipelined behind another": [LAST.replace(b"connection: close\r\n", b"") + issue().spelled()[0] + LAST],
    "in single bytes": [bytes([byte]) for byte in issue().spelled()[0] + LAST],
    "closed by the client's wish": Ask(
        "POST", COUPONS, (ANN,), (*issue().headers, (b"connection", b"close"))
    ).spelled(),
    "HTTP/1.0": [issue().spelled()[0].replace(b"HTTP/1.1", b"HTTP/1.0")],
    "HTTP/1.0 kept alive": [issue().spelled()[0].replace(b"HTTP/1.1", b"HTTP/1.0\r\nconnection: keep-alive")],
    "expecting to be told to go on": [
        *Ask("POST", COUPONS, (b"", ANN), (*issue().headers, (b"expect", b"100-continue"))).spelled(),
        LAST,
    ],
    "chunked": [
        *Ask(
            "POST", COUPONS, (b"7\r\n", ANN[:7], b"\r\n"), (*issue().headers, (b"transfer-encoding", b"chunked"))
        ).spelled(),
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(ANN) - 7, ANN[7:]),
        LAST,
    ],
    "asked to upgrade": [
        *Ask("POST", COUPONS, (ANN,), (*issue().headers, (b"connection", b"upgrade"), (b"upgrade", b"h2c"))).spelled(),
        LAST,
    ],
    "no HTTP": [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"],
    "headers twice": [*Ask("POST", COUPONS, (ANN,), (*issue().headers, *issue(key=b"second").headers)).spelled(), LAST],
    "a body with a GET": [*Ask("GET", COUPONS, (ANN,)).spelled(), *issue().spelled(), LAST],
    "redeemed twice on one connection": [*issue().spelled(), *redeem().spelled(), *redeem().spelled(), LAST],
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_however_the_bytes_arrive(room: Room, store_url: str, tmp_path: Path, shape: str) -> None:
    answers = []
    for front in (True, False):
        await room.client.flushall()
        await room.clock.set(LAUNCH)
        async with lane(store_url, tmp_path, front) as (reached, operator):
            await operator.open()
            answers.append(OWN_ID.sub(b"", await reached.converse(SHAPES[shape])))
    assert answers[0] == answers[1]
    assert answers[0].startswith((b"HTTP/1.1 20", b"HTTP/1.1 4", b"HTTP/1.1 100"))


async def test_both_lanes_answer_alike_when_the_store_has_gone(
    own_store: StoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "RETRY_SPREAD_S", 0)
    answers = []
    for front in (True, False):
        async with lane(own_store.url, tmp_path, front) as (reached, operator):
            async with connect(own_store.url, timeout_ms=1_000) as client:
                await Clock(client).set(LAUNCH)
            if front:
                await operator.open()
            await operator.issue("somebody-else")
            own_store.kill()
            answers += [await reached.answer_to(ask) for ask in (issue(), redeem())]
            own_store.start()
    assert answers[:2] == answers[2:]
    assert all(b'"reason":"store_unavailable"' in answer for answer in answers)
    assert [b"the same key" in answer for answer in answers] == [True, False] * 2
    assert [b"the same code and order" in answer for answer in answers] == [False, True] * 2


async def test_both_lanes_answer_alike_when_something_breaks_inside_and_log_it_under_its_id(
    room: Room, store_url: str, tmp_path: Path, log: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    await room.clock.set(LAUNCH)

    def broken(*_: object) -> bytes:
        raise RuntimeError("a mistake of ours")

    answers = []
    for front in (True, False):
        async with lane(store_url, tmp_path, front) as (reached, operator):
            if front:
                await operator.open()
                await operator.issue()
            with monkeypatch.context() as patch:
                patch.setattr(spelling.CampaignSpelling, "issued", broken)
                patch.setattr(spelling.CampaignSpelling, "redemption", broken)
                answers += [await reached.answer_to(ask) for ask in (issue(), redeem())]
    assert answers[:2] == answers[2:]
    assert all(b'"reason":"internal_error"' in answer for answer in answers)
    errors = [line for line in log if line["event"] == "request failed"]
    assert [line["call"] for line in errors] == ["issue", "redeem"] * 2
    assert all(line["request_id"] == "the-same-on-both-lanes" and line["exc_info"] for line in errors)
