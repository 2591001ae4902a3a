"""Why: a rehearsal needs no preparation: without a service to rehearse, it starts one that is gone afterwards."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx

from service.cli.failures import CommandError, ExitCode

START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.1
LAST_WORDS: Final = 3


@contextmanager
def own_service() -> Iterator[str]:
    """Run `tidegate up` with data of its own and give its URL, ready. Raises CommandError if it does not start."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="tidegate-rehearsal-") as folder:
        said = Path(folder) / "said"
        command = (
            *(sys.executable, "-m", "service.cli", "up", "--no-demo"),
            *("--port", str(port), "--data-dir", str(Path(folder) / "data")),
        )
        with said.open("wb") as output:
            process = subprocess.Popen(
                command, env=_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            _wait_until_ready(process, url, said)
            yield url
        finally:
            _stop(process)


def _environment() -> dict[str, str]:
    """The caller's, without what would lead the service to another store, address or set of keys."""
    elsewhere = ("STORE_URL", "QUEUE_URL", "CODE_SECRET", "API_KEYS", "HOST", "PORT", "DATA_DIR")
    dropped = {f"TIDEGATE_{name}" for name in elsewhere}
    return {name: value for name, value in os.environ.items() if name not in dropped}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, said: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline_s:
        try:
            if httpx.get(f"{url}/readyz", timeout=1, trust_env=False).is_success:
                return
        except httpx.HTTPError:
            pass
        time.sleep(POLL_S)
    words = " / ".join(said.read_text(errors="replace").splitlines()[-LAST_WORDS:])
    raise CommandError(f"the service did not start: {words or 'it said nothing'}", ExitCode.UNREACHABLE)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
