"""The store tests run on every server that Tidegate promises to run on, as far as this machine has it."""

import shutil
from collections.abc import Iterator

import pytest

from tests.store.server import running_store


@pytest.fixture(scope="session", params=["valkey", "redis"])
def store_program(request: pytest.FixtureRequest) -> str | None:
    """The server to run, or None for the embedded one."""
    program = shutil.which("redis-server") if request.param == "redis" else None
    if request.param == "redis" and program is None:
        pytest.skip("no redis-server on the PATH")
    return program


@pytest.fixture(scope="session")
def store_url(store_program: str | None) -> Iterator[str]:
    with running_store(store_program) as server:
        yield server.url
