"""kill -9 of the exporter at every step: every event is in the day files exactly once, and none is trimmed before."""

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgpack

from service.domain.events import BEGINNING, Event, EventId
from service.store import export, keys
from service.store.catalogue import Catalogue
from service.store.client import connect
from service.store.events import EventStore
from service.store.export import Exporter
from service.store.scripts import Scripts
from service.store.webhooks import WebhookStore
from tests.store.desk import LAUNCH, SECRET, Room
from worker.exporting import Exporting

DAYS: Final = 3
EVENTS_A_DAY: Final = 7
EVENTS_PER_PAGE: Final = 5
A_DAY_MS: Final = 86_400_000
MOST_STEPS: Final = 100
KEY: Final = keys.events_key("spring", 0)


class Steps:
    """Counts what a process does to disk and store, and kills it before one of them."""

    def __init__(self, last: int) -> None:
        self.left = last

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def stepping(*arguments: Any, **named: Any) -> Any:
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            return function(*arguments, **named)

        return stepping


def in_a_process(work: Callable[[], None]) -> bool:
    """Do the work in a process of its own; whether it lived to the end."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) == 0
    return os.WIFEXITED(status)


def export_until_killed(url: str, folder: Path, steps: int) -> None:
    counting = Steps(steps)
    os.fsync = counting.before(os.fsync)
    Scripts.run = counting.before(Scripts.run)  # type: ignore[method-assign]  # in a process that ends soon
    export.EVENTS_PER_EXPORT = EVENTS_PER_PAGE  # type: ignore[misc]

    async def go() -> None:
        client = connect(url, timeout_ms=5_000)
        scripts = Scripts(client)
        exporter = Exporter(scripts, EventStore(client), folder, retention_ms=0)
        exporting = Exporting(Catalogue(client, scripts, SECRET), exporter, WebhookStore(client, scripts))
        await exporting.export("spring", until_s=float("inf"))
        await client.aclose()

    asyncio.run(go())


async def fill(url: str) -> list[EventId]:
    """An open campaign, with events on several days, as if it had been opened anew."""
    client = connect(url, timeout_ms=5_000)
    room = Room(client)
    await client.flushall()
    await room.clock.set(LAUNCH)
    await room.open()
    ids = [EventId(LAUNCH + day * A_DAY_MS, number) for day in range(DAYS) for number in range(EVENTS_A_DAY)]
    for sequence, event_id in enumerate(ids):
        fields: Any = {"type": "coupon.issued", "data": msgpack.packb([sequence, 1, 2500])}
        await client.xadd(KEY, fields, id=str(event_id))
    await client.aclose()
    return ids


async def look(url: str, folder: Path) -> tuple[list[Event], EventId, list[EventId]]:
    """What the day files vouch for, the last event trimmed, and the events that the store still has."""
    client = connect(url, timeout_ms=5_000)
    exporter = Exporter(Scripts(client), EventStore(client), folder, retention_ms=0)
    campaign = await Catalogue(client, Scripts(client), SECRET).load("spring")
    assert campaign is not None
    state = await exporter.state(campaign, 0)
    exported = list(exporter.day_files(campaign, 0).read(state.checkpoint))
    entries: Any = await client.xrange(KEY)
    await client.aclose()
    return exported, state.trimmed, [EventId.parse(entry[0].decode()) for entry in entries]


def test_whenever_the_exporter_is_killed_every_event_is_exported_exactly_once(store_url: str, tmp_path: Path) -> None:
    killed = 0
    for steps in range(MOST_STEPS):
        folder = tmp_path / str(steps)
        ids = asyncio.run(fill(store_url))
        survived = in_a_process(partial(export_until_killed, store_url, folder, steps))
        exported, trimmed, kept = asyncio.run(look(store_url, folder))
        so_far = [event.id for event in exported]
        assert so_far == ids[: len(so_far)]
        assert kept == [event_id for event_id in ids if event_id > trimmed]
        assert trimmed == BEGINNING or trimmed in so_far
        assert in_a_process(partial(export_until_killed, store_url, folder, MOST_STEPS))
        exported, trimmed, kept = asyncio.run(look(store_url, folder))
        assert [event.id for event in exported] == ids
        assert [number for event in exported for number in event.coupons] == list(range(len(ids)))
        assert (trimmed, kept) == (ids[-1], [])
        names = sorted(path.name for path in (folder / "spring").iterdir())
        assert names == ["2026-02-05.0.ndjson.gz", "2026-02-06.0.ndjson.gz", "2026-02-07.0.ndjson.gz", "lock"]
        if survived:
            break
        killed += 1
    assert killed > 12
