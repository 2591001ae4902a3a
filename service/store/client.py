"""Connections to the store, made so that no command that changes anything is ever repeated behind our back."""

from typing import Any, Final, cast

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.store import keys
from service.store.scripts import store_errors

SCHEMA_VERSION: Final = 2
"""2: shards of new campaigns tell their layout (lua/fragments/state.lua). Those made before lie on as they did."""
CLUSTER_SCHEME: Final = "redis+cluster://"
SENTINEL_SCHEME: Final = "redis+sentinel://"
MAX_CONNECTIONS: Final = 64


class SchemaTooNew(Exception):
    """The store was written by a newer Tidegate."""


def connect(url: str, timeout_ms: int) -> Redis:
    """A client with bounded waits and no retries: redis-py would repeat a script whose answer came late.

    `redis+cluster://host:port` names a Cluster by one of its nodes, and
    `redis+sentinel://host:port,host:port/service` the primary that Sentinels watch over.
    """
    bounds: dict[str, Any] = {
        "retry": Retry(NoBackoff(), 0),
        "socket_timeout": timeout_ms / 1000,
        "socket_connect_timeout": timeout_ms / 1000,
        "max_connections": MAX_CONNECTIONS,
    }
    if url.startswith(CLUSTER_SCHEME):
        # It speaks the commands of a single server's client, and sends each to the node that its key belongs to.
        return cast(Redis, RedisCluster.from_url(url.replace(CLUSTER_SCHEME, "redis://", 1), **bounds))
    if url.startswith(SENTINEL_SCHEME):
        hosts, _, service = url.removeprefix(SENTINEL_SCHEME).partition("/")
        sentinels = [(host, int(port)) for host, _, port in (pair.rpartition(":") for pair in hosts.split(","))]
        watchers = Sentinel(sentinels, socket_timeout=timeout_ms / 1000)  # type: ignore[no-untyped-call]  # redis's own
        primary: Redis = watchers.master_for(service, **bounds)
        return primary
    # Whoever finds all connections taken waits his turn, as long as an answer may take.
    return Redis.from_pool(BlockingConnectionPool.from_url(url, timeout=timeout_ms / 1000, **bounds))


async def check_schema(client: Redis) -> None:
    """Note the schema version in a store that is empty or was written by an older Tidegate.

    Raises SchemaTooNew or StoreError.
    """
    with store_errors():
        await client.hsetnx(keys.META, "schema_version", str(SCHEMA_VERSION))
        found = await client.hget(keys.META, "schema_version")
    if found is not None and int(found) > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"the store has schema {int(found)}, this Tidegate knows {SCHEMA_VERSION}: start the newer Tidegate"
        )
    if found is not None and int(found) < SCHEMA_VERSION:
        with store_errors():
            await client.hset(keys.META, "schema_version", str(SCHEMA_VERSION))
