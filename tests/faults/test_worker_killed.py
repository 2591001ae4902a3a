"""A worker is killed in the middle of an extension: the next one goes on from there, and the count is exact."""

import asyncio
from functools import partial
from pathlib import Path

from service.domain.campaign import Campaign
from service.domain.extension import Terms
from service.store.extension_progress import ExtensionProgress, ExtensionStatus
from tests.store.desk import Room
from tests.store.server import running_store
from tests.story.running import eventually
from tests.worker.processes import BATCH, TOMORROW, in_the_store, open_with_coupons, progress, running

BATCHES = 120
COUPONS = BATCHES * BATCH
MOST_TRIES = 5
MOST_LOOKS = 30_000
AN_HOUR = 3_600_000


def test_an_extension_survives_kill_9_of_its_worker_and_changes_each_coupon_once(tmp_path: Path) -> None:
    with running_store() as server, running("worker.schedule", server.url, tmp_path):
        campaign = in_the_store(server.url, partial(open_with_coupons, batches=BATCHES)).campaign
        number = kill_a_worker_half_way(server.url, tmp_path, campaign)
        with running("worker", server.url, tmp_path):
            written = wait_until_written(server.url, number)
            assert (written.done, written.changed) == (COUPONS, COUPONS)
            again = in_the_store(server.url, partial(extend, campaign=campaign, until_ms=written.until_ms or 0))
            assert wait_until_written(server.url, again).changed == 0


def kill_a_worker_half_way(url: str, folder: Path, campaign: Campaign) -> int:
    """Return the number of the extension that a killed worker has left half-written: a quick worker may be done."""
    for attempt in range(MOST_TRIES):
        until_ms = TOMORROW + (attempt + 1) * AN_HOUR
        number = in_the_store(url, partial(extend, campaign=campaign, until_ms=until_ms))
        with running("worker", url, folder) as worker:
            in_the_store(url, partial(wait_for_the_first_chunk, number=number))
            worker.kill()
        left = in_the_store(url, partial(progress, number=number))
        if left.status is ExtensionStatus.RUNNING:
            return number
    raise AssertionError(f"{MOST_TRIES} workers were done before they could be killed")


async def wait_for_the_first_chunk(room: Room, number: int) -> None:
    for _ in range(MOST_LOOKS):
        if (await progress(room, number)).done:
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the worker has not begun")


async def extend(room: Room, campaign: Campaign, until_ms: int) -> int:
    made = await room.extensions.extend(campaign, Terms(until_ms=until_ms, reason="as asked"))
    assert isinstance(made, ExtensionProgress)
    return made.number


def wait_until_written(url: str, number: int) -> ExtensionProgress:
    def written() -> bool:
        return in_the_store(url, partial(progress, number=number)).status is ExtensionStatus.COMPLETED

    eventually(written, f"extension {number} is written through")
    return in_the_store(url, partial(progress, number=number))
