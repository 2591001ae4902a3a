"""`python -m service.api`: one machine's API processes, under uvicorn."""

import asyncio
import gc
import os
import shutil
import signal
import sys
import tempfile
from functools import cache
from multiprocessing.process import BaseProcess, parent_process
from threading import Thread
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from service.api.app import create_app
from service.api.leadership import SHARED_METRICS
from service.api.protocol import FastLaneProtocol
from service.api.time_slices import ask_for_slices
from service.logs import configure_logs
from service.settings import Settings, SettingsError, read_settings
from service.store.client import SchemaTooNew, check_schema, connect
from service.store.scripts import StoreError

GC_THRESHOLDS = (100_000, 50, 1_000)
"""What a request makes dies by reference count; looking for cycles as often as by default cost 5 % of the time."""
SERVER: Final[dict[str, Any]] = {
    "loop": "uvloop",
    "http": FastLaneProtocol,
    "ws": "none",
    "backlog": 4096,
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,
    "log_config": None,
    "timeout_keep_alive": 75,
    "timeout_graceful_shutdown": 10,
    "timeout_worker_healthcheck": 60,
}
"""How uvicorn serves; the bench's bare application is served the same way. One of several processes is killed when it
has not answered its supervisor for the last of these, and it cannot before its imports are done: two seconds of a core,
of which an overloaded machine may give it little. With uvicorn's five seconds none ever came up there."""


@cache
def settings() -> Settings:
    """This process's settings."""
    return read_settings()


def application() -> ASGIApp:
    """What uvicorn calls in each of its processes."""
    configure_logs(settings().log_level)
    if (parent := parent_process()) is not None:
        Thread(target=_stop_after, args=(parent,), daemon=True).start()
    app = create_app(settings())
    # What lives as long as the process need not be looked at by every collection.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return app


def _stop_after(parent: BaseProcess) -> None:
    """One of several processes must not go on serving, unseen, when the one that supervises them was killed."""
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


async def _check_store() -> None:
    client = connect(settings().effective_store_url, settings().group_commit.store_timeout_ms)
    try:
        await check_schema(client)
    finally:
        await client.aclose()


def main() -> int:
    """Serve until told to stop. Returns the exit code."""
    try:
        settings().read_code_key()
        asyncio.run(_check_store())
    except SettingsError as error:
        print(f"tidegate: {error}", file=sys.stderr)
        return 2
    except (StoreError, SchemaTooNew) as error:
        print(f"tidegate: cannot use the store: {error}", file=sys.stderr)
        return 1
    ask_for_slices(settings().serve_only)
    workers = settings().api_workers
    shared_metrics = tempfile.mkdtemp(prefix="tidegate-metrics-") if workers > 1 else None
    if shared_metrics:
        os.environ[SHARED_METRICS] = shared_metrics
    try:
        uvicorn.run(
            "service.api.__main__:application",
            factory=True,
            host=settings().host,
            port=settings().port,
            workers=workers,
            **SERVER,
        )
    finally:
        if shared_metrics:
            shutil.rmtree(shared_metrics, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
