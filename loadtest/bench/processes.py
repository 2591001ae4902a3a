"""Why: a figure is worth what is known of its conditions: who ran on which core, and how much of its time each took."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.cli.failures import CommandError, ExitCode

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 20.0
POLL_S: Final = 0.02
LAST_WORDS: Final = 3
IDLY: Final = ("chrt", "--idle", "0")
"""Put before a command whose program plays people with computers of their own: it runs only where nobody else would.

The kernel tells so within a session at most, where it shares its time out between sessions first, as Linux does for
desktops; and a program of low priority that runs already still keeps one that wakes up waiting, for a millisecond.
So all that is started here stays in the caller's session.
"""
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cores:
    """The core of what serves, and the one that the store shares with the generator of the load."""

    service: int
    load: int


def two_cores() -> Cores:
    """The first two cores that this process may use. Raises CommandError where there is one only."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise CommandError("a bench needs two cores, and there is one", ExitCode.REFUSED)
    return Cores(*cores[:2])


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep this process, and what it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def running(
    command: Sequence[str], core: int, said: Path, environment: Mapping[str, str], inherited: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program on one core; what it says goes into the file `said`. It is gone when the block ends.

    Raises CommandError if there is no such program.
    """
    with said.open("wb") as output, pinned(core):
        try:
            process = subprocess.Popen(
                command,
                env=environment,
                pass_fds=inherited,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C is for the bench alone, which stops its programs in their order.
                process_group=0,
            )
        except FileNotFoundError as error:
            raise CommandError(f"{command[0]} is not installed", ExitCode.REFUSED) from error
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(name: str, process: subprocess.Popen[bytes], said: Path, is_ready: Callable[[], bool]) -> None:
    """Return when it is. Raises CommandError with the program's last words if it never will be."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline_s:
            words = " / ".join(said.read_text(errors="replace").splitlines()[-LAST_WORDS:])
            raise CommandError(f"{name} did not start: {words or 'it said nothing'}", ExitCode.UNREACHABLE)
        time.sleep(POLL_S)


def cpu_s(pid: int) -> float:
    """The CPU time, in seconds, that a process and its living children have taken, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S + sum(cpu_s(int(child)) for child in children)


def plain_environment(**variables: str) -> dict[str, str]:
    """The caller's environment without Tidegate's own settings, which would change what is measured."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")} | variables


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
