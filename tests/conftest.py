"""What tests in every room share: a real Valkey of their own, and the store room over it with a turnable clock."""

from collections.abc import AsyncIterator, Iterator

import pytest

from service.store.client import connect
from tests.store.desk import LAUNCH, Room
from tests.store.server import running_store


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def store_url() -> Iterator[str]:
    with running_store() as server:
        yield server.url


@pytest.fixture
async def room(store_url: str) -> AsyncIterator[Room]:
    """An empty store at the launch of the campaign."""
    client = connect(store_url, timeout_ms=5_000)
    await client.flushall()
    room = Room(client)
    await room.clock.set(LAUNCH)
    yield room
    await client.aclose()
