import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.gate.door import settle
from tests.gate.tide import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.kill()


@pytest.fixture
async def nothing_stays() -> AsyncIterator[None]:
    """Whoever is idle has no task."""
    before = len(asyncio.all_tasks())
    yield
    await settle()
    assert len(asyncio.all_tasks()) == before
