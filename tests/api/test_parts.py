"""The parts of the API hear of each other, and end when they are told to, whatever they are doing."""

import asyncio

import pytest

from service.api.app import fastapi_lane
from service.api.parts import Parts
from service.gate.batch_size import BatchSize
from tests.api.caller import Caller, settings
from tests.store.desk import TURNABLE_CLOCK, Room

pytestmark = pytest.mark.anyio


async def test_the_parts_stop_at_whatever_moment_they_are_told_to(room: Room, store_url: str) -> None:
    del room
    for steps in range(0, 120, 4):
        before = asyncio.all_tasks()
        async with Parts(settings(store_url), TURNABLE_CLOCK).running():
            for _ in range(steps):
                await asyncio.sleep(0)
        assert asyncio.all_tasks() == before, f"told after {steps} steps"


async def test_the_size_of_batches_hears_how_long_issue_held_the_store_and_that_somebody_redeems(
    room: Room, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    del room
    heard: list[tuple[int, bool] | str] = []

    class Noted(BatchSize):
        def learn_held(self, size: int, held_s: float) -> None:
            heard.append((size, 0 < held_s < 1))

        def note_redemption(self) -> None:
            heard.append("redeemed")

    monkeypatch.setattr("service.api.parts.BatchSize", Noted)
    parts = Parts(settings(store_url), TURNABLE_CLOCK)
    async with parts.running(), Caller(fastapi_lane(parts)) as api:
        await api.open()
        await api.redeem(await api.code())
    assert heard == [(1, True), "redeemed"]
