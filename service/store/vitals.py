"""Why: a store that runs out of memory or a queue that nobody works off shows in no replica's own times.

One replica asks at a bounded rate, and all read what it found: `service.store.breaker_state` passes it round.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass

from redis.asyncio import Redis

from service.store.jobs import JobQueue
from service.store.scripts import StoreError, store_errors


@dataclass(frozen=True, slots=True)
class Vitals:
    """What the store and the queue say of themselves. `delayed_fsyncs` counts since the store started."""

    at_ms: int
    memory_bytes: int
    memory_max_bytes: int
    delayed_fsyncs: int
    oldest_job_s: float

    def to_json(self) -> str:
        """Return them as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "Vitals | None":
        """Read what `to_json` wrote; None for what another version may have written."""
        try:
            return Vitals(**json.loads(text))
        except (ValueError, TypeError):
            return None


class VitalSigns:
    """Asks the store and RQ's server. Of a Cluster one node is asked; a queue that does not answer has no jobs."""

    def __init__(self, client: Redis, jobs: JobQueue) -> None:
        self._client = client
        self._jobs = jobs

    async def read(self, now_ms: int) -> Vitals:
        """Return what they say now. Raises StoreError."""
        with store_errors():
            facts = await self._client.info("memory", "persistence")
        oldest_job_s = 0.0
        with suppress(StoreError):
            oldest_job_s = (await self._jobs.figures()).oldest_age_s
        return Vitals(
            now_ms,
            memory_bytes=facts["used_memory"],
            memory_max_bytes=facts["maxmemory"],
            delayed_fsyncs=facts.get("aof_delayed_fsync", 0),
            oldest_job_s=oldest_job_s,
        )
