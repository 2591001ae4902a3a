"""The API in this process, over a real store with a turnable clock, as `python -m service.api` composes it."""

from collections.abc import AsyncIterator, Iterator

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs
from structlog.typing import EventDict

from service.api.app import fastapi_lane
from service.api.parts import Parts
from tests.api.caller import Caller, settings
from tests.store.desk import TURNABLE_CLOCK, Room
from tests.store.server import StoreServer, running_store


@pytest.fixture(autouse=True)
def log() -> Iterator[list[EventDict]]:
    """What the API logs, line by line."""
    with capture_logs([merge_contextvars]) as lines:
        yield lines


@pytest.fixture
def own_store() -> Iterator[StoreServer]:
    """A store that the test may stop."""
    with running_store() as server:
        yield server


@pytest.fixture
async def parts(room: Room, store_url: str) -> AsyncIterator[Parts]:
    """What the API is made of, at work; the store is empty, and it is the launch of the campaign."""
    del room
    parts = Parts(settings(store_url), TURNABLE_CLOCK)
    async with parts.running():
        yield parts


@pytest.fixture
async def api(parts: Parts) -> AsyncIterator[Caller]:
    """Somebody in front of the API."""
    async with Caller(fastapi_lane(parts)) as caller:
        yield caller
