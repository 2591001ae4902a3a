"""Why: a dead scheduler enqueues nothing, so no job waits and no queue looks late. Only its own silence tells."""

from redis.asyncio import Redis

from service.store import keys
from service.store.scripts import Scripts, store_errors


class Heartbeat:
    """When the scheduler last left word. Every method raises StoreError when the store does not answer."""

    def __init__(self, client: Redis, scripts: Scripts) -> None:
        self._client = client
        self._scripts = scripts

    async def beat(self) -> None:
        """Leave word, at the store's time."""
        now_ms = await self._scripts.run("now", [])
        with store_errors():
            await self._client.set(keys.SCHEDULER_SEEN, now_ms)

    async def latest_ms(self) -> int | None:
        """When word was left last; None if it never was."""
        with store_errors():
            seen_ms = await self._client.get(keys.SCHEDULER_SEEN)
        return None if seen_ms is None else int(seen_ms)
