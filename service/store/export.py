"""The export: events leave the store for day files, and only what is on disk there may be trimmed."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from service.domain.campaign import Campaign
from service.domain.events import EventId
from service.store import keys
from service.store.day_files import Checkpoint, DayFiles, DayFilesBroken
from service.store.events import EventStore
from service.store.scripts import Scripts

EXPORT_EVERY_MS: Final = 10_000
"""How long events gather before the next export of their shard: each costs a sync of the disk."""
EVENTS_PER_EXPORT: Final = 1_000
EVENTS_PER_TRIM: Final = 1_000


class ExportState(NamedTuple):
    """How far a shard was exported and trimmed, and whether there is anything to do about it now."""

    is_due: bool
    checkpoint: Checkpoint
    trimmed: EventId


class Exporter:
    """Exports and trims. Its methods raise StoreError when the store does not answer.

    `retention_ms` is how long exported events stay in the store.
    """

    def __init__(self, scripts: Scripts, events: EventStore, directory: Path, retention_ms: int) -> None:
        self._scripts = scripts
        self._events = events
        self._directory = directory
        self._retention_ms = retention_ms

    async def state(self, campaign: Campaign, shard: int) -> ExportState:
        """How far the shard is: a look that costs little and writes nothing."""
        state_key = keys.state_key(campaign.id, shard)
        reply = await self._scripts.run("read_export", [state_key], EXPORT_EVERY_MS, self._retention_ms)
        is_due, exported, day, size, trimmed = reply
        checkpoint = Checkpoint(EventId.parse(exported.decode()), day.decode(), size)
        return ExportState(bool(is_due), checkpoint, EventId.parse(trimmed.decode()))

    async def is_due(self, campaign: Campaign) -> bool:
        """Whether any shard has events to export or to trim."""
        return any([(await self.state(campaign, shard)).is_due for shard in range(campaign.shards)])

    def day_files(self, campaign: Campaign, shard: int) -> DayFiles:
        """The shard's day files."""
        return DayFiles(self._directory, campaign.id, shard)

    async def export(self, campaign: Campaign, shard: int) -> bool:
        """Export the shard's next events; whether there are more. The caller holds the files' lock.

        Raises DayFilesBroken or OSError where the files cannot be gone on with; then nothing is noted.
        """
        checkpoint = (await self.state(campaign, shard)).checkpoint
        events = await self._events.read_shard(campaign.id, shard, checkpoint.id, EVENTS_PER_EXPORT)
        appending = self.day_files(campaign, shard).append(checkpoint, events)
        while (written := await _next(appending)) is not None:
            await self._note(campaign, shard, checkpoint, written)
            checkpoint = written
        return len(events) == EVENTS_PER_EXPORT

    async def trim(self, campaign: Campaign, shard: int, delivered: EventId | None) -> bool:
        """Trim what was exported, is old enough, and is not newer than `delivered`; whether there may be more."""
        state_key = keys.state_key(campaign.id, shard)
        keep = "" if delivered is None else str(delivered)
        trimmed = await self._scripts.run("trim_events", [state_key], self._retention_ms, keep, EVENTS_PER_TRIM)
        return bool(trimmed == EVENTS_PER_TRIM)

    async def _note(self, campaign: Campaign, shard: int, before: Checkpoint, now: Checkpoint) -> None:
        state_key = keys.state_key(campaign.id, shard)
        if not await self._scripts.run("note_export", [state_key], str(before.id), str(now.id), now.day, now.bytes):
            raise DayFilesBroken(f"somebody else has exported {campaign.id} meanwhile")


async def _next(appending: Iterator[Checkpoint]) -> Checkpoint | None:
    """Write on in a thread. Who is stopped meanwhile still waits for it, since the caller lets the lock go then."""
    writing = asyncio.get_running_loop().run_in_executor(None, next, appending, None)
    try:
        return await asyncio.shield(writing)
    finally:
        await asyncio.wait([writing])
