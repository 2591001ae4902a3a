"""Why: the parts on one machine live and die together: started in order, restarted visibly, stopped in reverse."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Final

import structlog

POLL_S: Final = 0.1
MAX_RESTARTS: Final = 5
RESTART_WINDOW_S: Final = 60.0
FIRST_RESTART_PAUSE_S: Final = 0.25
PR_SET_PDEATHSIG: Final = 1

log = structlog.get_logger("tidegate")


def always() -> bool:
    """Return True: there is nothing to wait for."""
    return True


def nothing() -> None:
    """Do nothing: there is nothing to clear or to tend."""


class PartError(Exception):
    """A part cannot run, so nothing can; the message is one line that a person can act on."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process: what starts it, how to tell that it is ready, and how long it may take to stop.

    `clear` is called before each start, `tend` every POLL_S while all parts run; it must be quick. Neither may raise.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    stop_within_s: float
    start_within_s: float = 30.0
    inherited: tuple[int, ...] = ()
    is_ready: Callable[[], bool] = always
    may_restart: Callable[[], bool] = always
    clear: Callable[[], None] = nothing
    tend: Callable[[], None] = nothing
    explain: Callable[[], str] = lambda: "see its log lines above"


class RestartBudget:
    """At most MAX_RESTARTS within RESTART_WINDOW_S, each after twice the pause of the one before."""

    def __init__(self) -> None:
        self._restarts: deque[float] = deque(maxlen=MAX_RESTARTS)

    def spend(self, now_s: float) -> float | None:
        """Return how many seconds to wait before the next restart, or None when the budget is used up."""
        while self._restarts and self._restarts[0] <= now_s - RESTART_WINDOW_S:
            self._restarts.popleft()
        if len(self._restarts) == MAX_RESTARTS:
            return None
        pause_s = FIRST_RESTART_PAUSE_S * 2 ** len(self._restarts)
        self._restarts.append(now_s)
        return float(pause_s)


@dataclass(slots=True)
class _Child:
    part: Part
    process: subprocess.Popen[bytes]
    budget: RestartBudget = field(default_factory=RestartBudget)
    restart_at_s: float | None = None


class Supervisor:
    """Runs parts, in the order given, until one signal asks it to stop; a second signal hurries it."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._children: list[_Child] = []
        self._stop_requests = 0

    def run(self, when_ready: Callable[[], None]) -> None:
        """Start everything, call `when_ready`, watch until asked to stop, and leave no process behind.

        Raises PartError, with all stopped, when a part does not start or dies too often.
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup has the end of the terminal ignored, and that is how it shall stay.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._request_stop)
        try:
            for part in self._parts:
                self._start(part)
            when_ready()
            while True:
                self._pause()
                for child in self._children:
                    self._revive(child)
                    child.part.tend()
        except KeyboardInterrupt:
            log.info("stopping", parts=[child.part.name for child in reversed(self._children)])
        finally:
            for child in reversed(self._children):
                self._stop(child)

    def _request_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_requests += 1

    def _pause(self) -> None:
        if self._stop_requests:
            raise KeyboardInterrupt
        time.sleep(POLL_S)

    def _start(self, part: Part) -> None:
        self._children.append(_Child(part, _spawn(part)))
        deadline_s = time.monotonic() + part.start_within_s
        while not part.is_ready():
            self._pause()
            for child in self._children:
                if child.process.poll() is not None:
                    raise PartError(f"the {child.part.name} ended while starting: {child.part.explain()}")
            if time.monotonic() > deadline_s:
                raise PartError(f"the {part.name} was not ready within {part.start_within_s:.0f} s: {part.explain()}")
        log.info("part is ready", part=part.name)

    def _revive(self, child: _Child) -> None:
        if child.process.poll() is None:
            return
        now_s = time.monotonic()
        if child.restart_at_s is None:
            # What the dead process started itself would hold its port or its data.
            _kill_group(child.process)
            pause_s = child.budget.spend(now_s)
            reason = child.part.explain()
            exit_code = child.process.returncode
            log.error("part ended", part=child.part.name, exit_code=exit_code, reason=reason, restart_in_s=pause_s)
            if pause_s is None:
                raise PartError(
                    f"the {child.part.name} ended {MAX_RESTARTS + 1} times within {RESTART_WINDOW_S:.0f} s: {reason}"
                )
            child.restart_at_s = now_s + pause_s
        elif now_s >= child.restart_at_s and child.part.may_restart():
            child.restart_at_s = None
            child.process = _spawn(child.part)

    def _stop(self, child: _Child) -> None:
        deadline_s = time.monotonic() + child.part.stop_within_s
        if child.process.poll() is None:
            child.process.terminate()
        while child.process.poll() is None and time.monotonic() < deadline_s and self._stop_requests < 2:
            time.sleep(POLL_S / 10)
        killed = child.process.poll() is None
        _kill_group(child.process)
        child.process.wait()
        if killed:
            log.warning("part killed", part=child.part.name, stop_within_s=child.part.stop_within_s)
        else:
            log.info("part stopped", part=child.part.name, exit_code=child.process.returncode)


def _spawn(part: Part) -> subprocess.Popen[bytes]:
    part.clear()
    # A session of its own keeps the terminal's Ctrl-C away from the child: the supervisor stops it in its turn.
    process = subprocess.Popen(  # noqa: S603 - the commands are Tidegate's own parts
        part.command,
        env=part.environment,
        stdin=subprocess.DEVNULL,
        pass_fds=part.inherited,
        start_new_session=True,
        umask=0o077,
        preexec_fn=_die_with_parent(),
    )
    log.info("part started", part=part.name, pid=process.pid)
    return process


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl

    def ask_the_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return ask_the_kernel


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
