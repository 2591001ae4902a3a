"""The export: one process at a time writes a campaign's day files, also where the disk stalls."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest

from service.store.day_files import Checkpoint
from service.store.events import EventStore
from service.store.export import Exporter
from service.store.webhooks import WebhookStore
from tests.store.desk import Room
from worker.exporting import Exporting

pytestmark = pytest.mark.anyio


@contextmanager
def a_disk_that_stalls(monkeypatch: pytest.MonkeyPatch) -> Iterator[Event]:
    """A disk whose first sync ends with the block; the event says that it has begun."""
    begun, ended, sync = Event(), Event(), os.fsync

    def stall(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        begun.set()
        ended.wait()
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", stall)
    try:
        yield begun
    finally:
        ended.set()


async def test_who_is_stopped_while_the_disk_stalls_keeps_others_away_until_his_write_has_ended(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = await room.open()
    exporter = Exporter(room.scripts, EventStore(room.client), tmp_path, retention_ms=0)
    files = exporter.day_files(desk.campaign, 0)

    async def export() -> Checkpoint:
        exporting = Exporting(room.catalogue, exporter, WebhookStore(room.client, room.scripts))
        await exporting.export("spring", until_s=time.monotonic() + 60)
        return (await exporter.state(desk.campaign, 0)).checkpoint

    await desk.issue()
    with a_disk_that_stalls(monkeypatch) as begun:
        stopped = asyncio.create_task(export())
        await asyncio.to_thread(begun.wait)
        stopped.cancel()
        await desk.issue("bob")
        assert await export() == Checkpoint()
    with pytest.raises(asyncio.CancelledError):
        await stopped
    events = await room.events()
    assert len(events) == 2
    assert list(files.read(await export())) == events
