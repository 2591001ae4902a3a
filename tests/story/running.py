"""Why: the stories are told about a real `tidegate up`: its own processes, its own data, a port nobody else has."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import pytest

from service.cli import main

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.05
TIDEGATE: Final = (sys.executable, "-m", "service.cli")


def eventually(holds: Callable[[], bool], what: str, timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait until something holds, or say what did not."""
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, f"not within {timeout_s} s: {what}"
        time.sleep(POLL_S)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(**variables: str) -> dict[str, str]:
    """Return the environment without the variables of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")} | variables


def tidegate(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one `tidegate` command in a process of its own."""
    return subprocess.run(
        (*TIDEGATE, *arguments),
        input=stdin,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
    )


def tidegate_here(*arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run one `tidegate` command in this process, which saves half a second of imports."""
    out, err = StringIO(), StringIO()
    with (
        patch.dict(os.environ, environment(**variables), clear=True),
        patch.object(sys, "stdin", TextIOWrapper(BytesIO(stdin.encode()))),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main(arguments)
    code = ended.value.code
    return subprocess.CompletedProcess(arguments, code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())


def is_alive(pid: int) -> bool:
    """Tell whether a process still runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@dataclass(frozen=True, slots=True)
class Up:
    """A `tidegate up` and what it said."""

    process: subprocess.Popen[bytes]
    url: str
    stdout: Path
    stderr: Path

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return its log lines of one event; each line of its stdout must be JSON."""
        lines = [json.loads(line) for line in self.stdout.read_text().splitlines()]
        return [line for line in lines if line["event"] == name]

    def pid(self, part: str) -> int:
        """Return the process that a part runs in now."""
        return int([line["pid"] for line in self.events("part started") if line["part"] == part][-1])

    def said(self) -> str:
        """Return what it told the person in front of it."""
        return self.stderr.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT_S)


@contextmanager
def up(data: Path, *options: str, **variables: str) -> Iterator[Up]:
    """Run `tidegate up` over a data folder, ready when the block begins, gone when it ends."""
    port = free_port()
    stdout, stderr = data.with_name(f"{data.name}.{port}.out"), data.with_name(f"{data.name}.{port}.err")
    with stdout.open("wb") as out, stderr.open("wb") as err:
        process = subprocess.Popen(
            (*TIDEGATE, "up", "--port", str(port), "--data-dir", str(data), *options),
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
    running = Up(process, f"http://127.0.0.1:{port}", stdout, stderr)
    try:
        eventually(lambda: "is open" in running.said() or process.poll() is not None, "tidegate up is ready")
        assert process.poll() is None, running.said() + stdout.read_text()
        yield running
    finally:
        if process.poll() is None:
            running.stop()
