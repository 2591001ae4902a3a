"""Connections to the store, made so that no command that changes anything is ever repeated behind our back."""

from typing import Any, Final, cast
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster, Sentinel
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException

from service.store import keys
from service.store.scripts import store_errors

SCHEMA_VERSION: Final = 2
"""2: shards of new campaigns tell their layout (lua/fragments/state.lua). Those made before lie on as they did."""
CLUSTER_SCHEME: Final = "redis+cluster://"
SENTINEL_SCHEME: Final = "redis+sentinel://"
SENTINEL_PORT: Final = 26379
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
        sentinels, service = _watched(url)
        watchers = Sentinel(sentinels, socket_timeout=timeout_ms / 1000)  # type: ignore[no-untyped-call]  # redis's own
        primary: Redis = watchers.master_for(service, **bounds)
        return primary
    # Whoever finds all connections taken waits his turn, as long as an answer may take.
    return Redis.from_pool(BlockingConnectionPool.from_url(url, timeout=timeout_ms / 1000, **bounds))


def check_url(url: str) -> None:
    """Raises ValueError if no client can be made of the URL, and tells nothing of it: it may hold a password."""
    try:
        client: Any = connect(url, timeout_ms=1)
        if not isinstance(client, RedisCluster):
            # An option that no connection knows is noticed only here.
            client.connection_pool.make_connection()
    except (ValueError, TypeError, RedisClusterException) as error:
        raise ValueError("names no store: host, port, database, service or an option in it cannot be read") from error


def without_credentials(url: str) -> str:
    """The URL as anybody may read it: without user, password and options, of which one may be the password."""
    scheme, _, rest = url.partition("?")[0].partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}://{place.rpartition('@')[2]}{slash}{path}"


def _watched(url: str) -> tuple[list[tuple[str, int]], str]:
    """Where the Sentinels are, and what they call the primary. Raises ValueError if the URL does not say."""
    places, _, service = url.removeprefix(SENTINEL_SCHEME).partition("/")
    sentinels = [urlsplit(f"//{place}") for place in places.split(",")]
    if not service or any(place.hostname is None or "@" in place.netloc for place in sentinels):
        raise ValueError("Sentinels are named as host:port,host:port/service, without a user or a password")
    return [(str(place.hostname), place.port or SENTINEL_PORT) for place in sentinels], service


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
