"""Why: worker and scheduler begin alike: with settings, logs and a store that answers, or with one clear line."""

import asyncio
import signal
import sys
import time
from contextlib import closing
from types import FrameType
from typing import Final

import structlog

from service.logs import configure_logs
from service.settings import Settings, SettingsError, read_settings
from service.store.client import SchemaTooNew, check_schema, connect
from service.store.jobs import JobQueue, QueueOnCluster
from service.store.scripts import StoreError, StoreTimeout, StoreUnreachable

STORE_TIMEOUT_MS: Final = 3_000
START_WITHIN_S: Final = 30.0
ASK_AGAIN_AFTER_S: Final = 0.5

log = structlog.get_logger("tidegate.worker")


def begin(part: str) -> Settings:
    """Return the settings once the store and the queue answer; wait for them for START_WITHIN_S at most.

    Ends the process with one line on stderr and exit code 1 when they cannot be used.
    """
    leave_on_signals()
    try:
        settings = read_settings()
        configure_logs(settings.log_level)
        _wait_for_store(settings)
    except (SettingsError, StoreError, SchemaTooNew, QueueOnCluster) as error:
        sys.exit(f"tidegate {part}: {error}")
    return settings


def leave_on_signals() -> None:
    """End the process at once on SIGTERM and SIGINT: whatever it was doing is in the store or was not begun."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _wait_for_store(settings: Settings) -> None:
    deadline_s = time.monotonic() + START_WITHIN_S
    said = False
    while True:
        try:
            asyncio.run(_check_store(settings.effective_store_url))
            _check_queue(settings.effective_queue_url)
        except (StoreUnreachable, StoreTimeout) as error:
            if time.monotonic() > deadline_s:
                raise
            if not said:
                log.warning("waiting for the store", reason=str(error), for_s=START_WITHIN_S)
            said = True
            time.sleep(ASK_AGAIN_AFTER_S)
        else:
            return


async def _check_store(url: str) -> None:
    client = connect(url, STORE_TIMEOUT_MS)
    try:
        await check_schema(client)
    finally:
        await client.aclose()


def _check_queue(url: str) -> None:
    with closing(JobQueue(url)) as jobs:
        jobs.check()
