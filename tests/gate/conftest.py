from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gate.tide import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.kill()
