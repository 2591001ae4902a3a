"""The worker and the scheduler as processes: they begin, stop and outlive the store's restarts without a fuss."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from service.domain.campaign import Campaign
from service.domain.extension import Terms
from service.domain.webhooks import Webhook, written_secret
from service.store import keys
from service.store.extension_progress import ExtensionStatus
from service.store.heartbeat import Heartbeat
from service.store.jobs import JobQueue
from service.store.webhooks import WebhookStore
from tests.store.cluster import ClusterServer
from tests.store.desk import Room
from tests.store.server import running_store
from tests.story.running import environment, eventually
from tests.worker.processes import NEXT_WEEK, in_the_store, open_with_coupons, progress, running
from tests.worker.receiver import receiving

PARTS = ["worker", "worker.schedule"]
PATIENCE_S = 30.0
IMPATIENT = "import worker.start, runpy; worker.start.START_WITHIN_S = 2; runpy.run_module({!r}, run_name='__main__')"


def begin(part: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a part that cannot begin, with less patience than it has in earnest."""
    return subprocess.run(
        [sys.executable, "-c", IMPATIENT.format(part)],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


@pytest.mark.parametrize("part", PARTS)
def test_without_a_store_a_part_ends_with_one_line(part: str, tmp_path: Path) -> None:
    ended = begin(part, TIDEGATE_STORE_URL=f"unix://{tmp_path}/nothing")
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "nothing" in line


@pytest.mark.parametrize("part", PARTS)
def test_a_setting_that_cannot_be_used_ends_a_part_with_one_line(part: str) -> None:
    ended = begin(part, TIDEGATE_QUEUE_URL="redis+cluster://127.0.0.1:6379")
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "TIDEGATE_QUEUE_URL" in line


@pytest.mark.parametrize("part", PARTS)
def test_a_store_of_a_newer_tidegate_ends_a_part_with_one_line(part: str, jobs: JobQueue, store_url: str) -> None:
    jobs.rq.connection.hset(keys.META, "schema_version", "99")
    ended = begin(part, TIDEGATE_STORE_URL=store_url)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "newer" in line


@pytest.fixture
def cluster_url(tmp_path: Path) -> Iterator[str]:
    """A server that is part of a Cluster."""
    server = ClusterServer(tmp_path)
    yield f"redis://{server.address}"
    server.kill()


@pytest.mark.parametrize("part", PARTS)
def test_a_queue_on_a_cluster_ends_a_part_with_one_line(part: str, cluster_url: str, store_url: str) -> None:
    ended = begin(part, TIDEGATE_STORE_URL=store_url, TIDEGATE_QUEUE_URL=cluster_url)
    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert "Cluster" in line
    assert "TIDEGATE_QUEUE_URL" in line


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_part_with_nothing_to_do_stops_when_it_is_asked(
    part: str, number: signal.Signals, store_url: str, tmp_path: Path
) -> None:
    with running(part, store_url, tmp_path) as process:
        assert process.stop(number) == 0


def test_a_worker_that_is_asked_to_stop_ends_its_job_first(jobs: JobQueue, store_url: str, tmp_path: Path) -> None:
    desk = in_the_store(store_url, partial(open_with_coupons, batches=60))
    in_the_store(store_url, partial(extend, campaign=desk.campaign))
    asyncio.run(jobs.write_extension_through("spring", 1))
    with running("worker", store_url, tmp_path) as worker:
        eventually(lambda: in_the_store(store_url, progress).done > 0, "the extension is begun")
        assert worker.stop(signal.SIGTERM) == 0
    written = in_the_store(store_url, progress)
    assert written.changed == written.done
    figures = asyncio.run(jobs.figures())
    assert (figures.started, figures.scheduled, figures.failed) == (0, 0, 0)


def test_worker_and_scheduler_outlive_a_restart_of_the_store_and_say_so_once(tmp_path: Path) -> None:
    with running_store() as server:
        desk = in_the_store(server.url, partial(open_with_coupons, batches=1))
        with (
            running("worker", server.url, tmp_path) as worker,
            running("worker.schedule", server.url, tmp_path) as scheduler,
        ):
            eventually(lambda: in_the_store(server.url, is_idle), "the worker waits for jobs")
            server.kill()
            eventually(lambda: any(line["level"] == "error" for line in worker.lines()), "the worker misses the queue")
            eventually(lambda: bool(scheduler.events("the store does not answer")), "the scheduler misses the store")
            server.start()
            in_the_store(server.url, partial(extend, campaign=desk.campaign))
            eventually(lambda: in_the_store(server.url, is_written), "the extension is written through")
            assert len(scheduler.events("the store does not answer")) == 1
            assert len(scheduler.events("the store answers again")) == 1
            assert len([line for line in worker.lines() if line["level"] == "error"]) == 1
            assert len(worker.events("the queue answers again")) == 1
            assert scheduler.stop(signal.SIGTERM) == 0
            assert worker.stop(signal.SIGTERM) == 0


def test_the_scheduler_leaves_word_again_and_again(jobs: JobQueue, store_url: str, tmp_path: Path) -> None:
    del jobs
    assert in_the_store(store_url, last_word_ms) is None
    with running("worker.schedule", store_url, tmp_path):
        eventually(lambda: in_the_store(store_url, last_word_ms) is not None, "the scheduler was heard of")
        first_ms = in_the_store(store_url, last_word_ms)
        eventually(lambda: in_the_store(store_url, last_word_ms) != first_ms, "the scheduler was heard of again")


async def last_word_ms(room: Room) -> int | None:
    return await Heartbeat(room.client, room.scripts).latest_ms()


def test_a_webhook_that_cannot_be_read_ends_no_telling_for_good(tmp_path: Path) -> None:
    with running_store() as server, receiving() as receiver:
        in_the_store(server.url, partial(open_with_coupons, batches=1))
        in_the_store(server.url, spoil_a_webhook)
        variables = {"TIDEGATE_WEBHOOKS__ALLOW_PRIVATE": "true", "TIDEGATE_CODE_SECRET": "s" * 32}
        with running("worker", server.url, tmp_path, **variables) as worker:
            eventually(lambda: bool(worker.events("webhooks cannot be told")), "the courier has stumbled")
            in_the_store(server.url, partial(mend_the_webhook, url=receiver.url))
            eventually(lambda: bool(receiver.messages), "the webhook is told")


async def spoil_a_webhook(room: Room) -> None:
    await room.client.hset(keys.WEBHOOKS, "wh-1", "{}")


async def mend_the_webhook(room: Room, url: str) -> None:
    await room.client.delete(keys.WEBHOOKS)
    secret = written_secret(b"\1" * 32)
    webhook = Webhook(id="wh-1", url=url, secret=secret, types=("coupon.issued",), campaign_id=None, created_at_ms=0)
    await WebhookStore(room.client, room.scripts).register(webhook)


async def extend(room: Room, campaign: Campaign) -> None:
    await room.extensions.extend(campaign, Terms(until_ms=NEXT_WEEK, reason="as asked"))


async def is_idle(room: Room) -> bool:
    workers = [name async for name in room.client.scan_iter("rq:worker:*", _type="hash")]
    return [await room.client.hget(name, "state") for name in workers] == [b"idle"]


async def is_written(room: Room) -> bool:
    return (await progress(room)).status is ExtensionStatus.COMPLETED
