"""Issue and redeem get the same answer, byte for byte, whether the fast lane gives it or FastAPI does."""

import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp
from structlog.typing import EventDict

from service.api import problems
from service.api.app import fastapi_lane
from service.api.fast_lane import FastLane
from service.api.parts import Parts
from service.store import coupons, keys
from tests.api.caller import Caller, settings
from tests.api.corpus import STORIES, Step, issue, redeem
from tests.api.exchange import Answer, Ask, answer_to
from tests.store.desk import LAUNCH, TURNABLE_CLOCK, Room

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def lane(url: str, front: bool) -> AsyncIterator[tuple[ASGIApp, Caller]]:
    """One lane, and an operator whose requests do not depend on it."""
    parts = Parts(settings(url), TURNABLE_CLOCK)
    behind = fastapi_lane(parts)
    async with parts.running(), Caller(behind) as operator:
        yield FastLane(behind, parts) if front else behind, operator


async def told(room: Room, url: str, front: bool, changes: dict[str, Any], steps: Sequence[Step]) -> list[Answer]:
    """What one lane answers to a story, from an empty store on."""
    await room.client.flushall()
    await room.clock.set(LAUNCH)
    answers = []
    async with lane(url, front) as (app, operator):
        await operator.open(**changes)
        for step in steps:
            if isinstance(step, int):
                await room.clock.advance(step)
                continue
            # Where chance decides when a caller should come back, it decides alike.
            random.seed(7)
            answers.append(await answer_to(app, step))
    return answers


@pytest.mark.parametrize("named", STORIES)
async def test_both_lanes_answer_alike(room: Room, store_url: str, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if named == "too_many_attempts":
        monkeypatch.setattr(coupons, "MAX_ATTEMPTS", 1)
    changes, steps = STORIES[named]
    fast = await told(room, store_url, True, changes, steps)
    slow = await told(room, store_url, False, changes, steps)
    asks = [step for step in steps if isinstance(step, Ask)]
    for ask, ours, theirs in zip(asks, fast, slow, strict=True):
        assert ours == theirs, ask
        assert ours.status < 500 or ours.status == 503, ask
    assert named in {json.loads(answer.body).get("reason") for answer in fast if answer.body}


async def test_both_lanes_answer_alike_without_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "RETRY_SPREAD_S", 0)
    answers = []
    for front in (True, False):
        async with lane(f"unix://{tmp_path / 'nowhere'}", front) as (app, _):
            answers += [await answer_to(app, issue()), await answer_to(app, redeem())]
    assert answers[:2] == answers[2:]
    assert {json.loads(answer.body)["reason"] for answer in answers} == {"store_unavailable"}


async def test_both_lanes_answer_alike_when_something_breaks_inside_and_log_it_under_its_id(
    room: Room, store_url: str, log: list[EventDict]
) -> None:
    await room.client.hset(keys.CAMPAIGNS, "spring", "no campaign")
    await room.client.hset(keys.PREFIXES, "QWEN", "spring")
    answers = []
    for front in (True, False):
        async with lane(store_url, front) as (app, _):
            answers += [await answer_to(app, issue()), await answer_to(app, redeem())]
    assert answers[:2] == answers[2:]
    assert {json.loads(answer.body)["reason"] for answer in answers} == {"internal_error"}
    errors = [line for line in log if line["event"] == "request failed"]
    assert [line["call"] for line in errors] == ["issue", "redeem", "other", "other"]
    assert all(line["request_id"] == "the-same-on-both-lanes" and line["exc_info"] for line in errors)
