"""The queue over the same server as the store."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from service.store.jobs import JobQueue


@pytest.fixture
def jobs(store_url: str) -> Iterator[JobQueue]:
    """An empty queue in an empty store."""
    with closing(JobQueue(store_url)) as queue:
        queue.rq.connection.flushall()
        yield queue
        queue.rq.connection.flushall()
