"""Why: what a signal, a crash or a missing store does, only a process of its own can tell, by the real clock."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from service.domain.validity import FixedValidity
from service.store.client import connect
from service.store.extension_progress import ExtensionProgress
from tests.store.desk import Desk, Room
from tests.story.running import environment, eventually

Answer = TypeVar("Answer")

NOW: Final = round(time.time() * 1000)
TOMORROW: Final = NOW + 86_400_000
NEXT_WEEK: Final = NOW + 7 * 86_400_000
NAMES: Final = {"worker": "worker", "worker.schedule": "scheduler"}
BATCH: Final = 256
STOP_WITHIN_S: Final = 30.0


def in_the_store(url: str, visit: Callable[[Room], Awaitable[Answer]]) -> Answer:
    """What the visit finds. RQ runs jobs in event loops of their own, so there is one here only for the visit."""

    async def go() -> Answer:
        client = connect(url, timeout_ms=5_000)
        room = Room(client)
        await room.clock.set(NOW)
        try:
            return await visit(room)
        finally:
            await client.aclose()

    return asyncio.run(go())


async def open_with_coupons(room: Room, batches: int, until_ms: int = TOMORROW, **changes: Any) -> Desk:
    """Open a campaign whose coupons are valid until tomorrow, or another instant, and issue that many batches."""
    validity = FixedValidity("Asia/Shanghai", None, until_ms)
    desk = await room.open(**{"max_coupons": batches * BATCH, "budget": None, "validity": validity} | changes)
    for batch in range(batches):
        await desk.issue_batch((f"user {batch}-{number}", "first") for number in range(BATCH))
    return desk


async def progress(room: Room, number: int = 1) -> ExtensionProgress:
    """How far an extension of that campaign is."""
    campaign = await room.catalogue.load("spring")
    assert campaign is not None
    found = await room.extensions.progress(campaign, number)
    assert found is not None
    return found


class Process:
    """A worker or a scheduler, and what it said."""

    def __init__(self, process: subprocess.Popen[bytes], lines: Path) -> None:
        self.process = process
        self._lines = lines

    def events(self, event: str) -> list[dict[str, Any]]:
        """Its log lines of one event."""
        return [line for line in self.lines() if line["event"] == event]

    def lines(self) -> list[dict[str, Any]]:
        """All that it logged; each of its lines must be JSON."""
        return [json.loads(line) for line in self._lines.read_text().splitlines()]

    def stop(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_WITHIN_S)

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running(module: str, store_url: str, folder: Path, **variables: str) -> Iterator[Process]:
    """`python -m module` for as long as the block lasts."""
    lines = folder / f"{module}.{len(list(folder.iterdir()))}.log"
    with lines.open("wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            env=environment(TIDEGATE_STORE_URL=store_url, TIDEGATE_DATA_DIR=str(folder / "data"), **variables),
            stdout=stdout,
        )
    begun = Process(process, lines)
    try:
        eventually(lambda: bool(begun.events(f"{NAMES[module]} started")), f"{module} has started")
        yield begun
    finally:
        begun.kill()
