"""The store tests run on every server that Tidegate promises to run on, as far as this machine has it."""

import shutil
from collections.abc import Iterator

import pytest

from tests.store.server import running_store


@pytest.fixture(scope="session", params=["valkey", "redis"])
def store_url(request: pytest.FixtureRequest) -> Iterator[str]:
    program = shutil.which("redis-server") if request.param == "redis" else None
    if request.param == "redis" and program is None:
        pytest.skip("no redis-server on the PATH")
    with running_store(program) as server:
        yield server.url
