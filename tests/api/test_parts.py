"""The parts of the API end when they are told to, whatever they are doing."""

import asyncio

import pytest

from service.api.parts import Parts
from tests.api.caller import settings
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
