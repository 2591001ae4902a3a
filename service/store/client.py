"""Connections to the store, made so that no command that changes anything is ever repeated behind our back."""

from typing import Final

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.store import keys
from service.store.scripts import store_errors

SCHEMA_VERSION: Final = 1
MAX_CONNECTIONS: Final = 64


class SchemaTooNew(Exception):
    """The store was written by a newer Tidegate."""


def connect(url: str, timeout_ms: int) -> Redis:
    """A client with bounded waits and no retries: redis-py would repeat a script whose answer came late."""
    return Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout_ms / 1000,
        socket_connect_timeout=timeout_ms / 1000,
        max_connections=MAX_CONNECTIONS,
    )


async def check_schema(client: Redis) -> None:
    """Note the schema version in an empty store. Raises SchemaTooNew or StoreError."""
    with store_errors():
        await client.hsetnx(keys.META, "schema_version", str(SCHEMA_VERSION))
        found = await client.hget(keys.META, "schema_version")
    if found is not None and int(found) > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"the store has schema {int(found)}, this Tidegate knows {SCHEMA_VERSION}: start the newer Tidegate"
        )
