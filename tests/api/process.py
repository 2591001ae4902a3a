"""Why: some promises are only worth something across processes, so `python -m service.api` is run in earnest."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from tests.story.running import POLL_S, START_TIMEOUT_S, STOP_TIMEOUT_S, environment, free_port

CODE_SECRET: Final = "a-secret-that-no-log-may-tell-" * 2


@dataclass(frozen=True, slots=True)
class ApiProcess:
    """A running API and everything that it said."""

    url: str
    log: Path
    process: subprocess.Popen[bytes]

    def terminate(self) -> None:
        """Ask it to stop."""
        self.process.terminate()

    def has_ended(self) -> bool:
        """Whether it has."""
        return self.process.poll() is not None


@contextmanager
def running_api(store_url: str, log: Path, **variables: str) -> Iterator[ApiProcess]:
    """An API over that store, ready when the block begins; it must stop in order when the block ends."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {"TIDEGATE_STORE_URL": store_url, "TIDEGATE_CODE_SECRET": CODE_SECRET, "TIDEGATE_PORT": str(port)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            (sys.executable, "-m", "service.api"),
            env=environment(**settings, **variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_ready(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the API is not ready in time"
            time.sleep(POLL_S)
        yield ApiProcess(url, log, process)
        process.terminate()
        # Once all is in order, uvicorn ends by the signal that it was told to end with; its supervisor ends with 0.
        assert process.wait(STOP_TIMEOUT_S) in (0, -signal.SIGTERM)
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=1, trust_env=False).is_success
    except httpx.HTTPError:
        return False
