"""Why: wrk plays the people: no other generator leaves a store on the same core enough of it."""

import json
import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtest.bench.processes import pinned
from loadtest.bench.tally import Answers
from service.cli.failures import CommandError, ExitCode

SCRIPT: Final = Path(__file__).parent / "wrk" / "people.lua"
FAR_APART: Final = 48_611
"""From one user to the next: a prime, so that all come before the first comes again."""
ANSWER_TIMEOUT_S: Final = 5
END_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Visit:
    """How it went: answers, how long it took, percentiles of the time to an answer, and wrk's own CPU time."""

    answers: Answers
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_s: float


def issue(campaign_id: str, first_user: int, users: int, key: str) -> tuple[str, ...]:
    """Ask for coupons for one user after the other; a user's idempotency key is `key` and his number."""
    return ("issue", f"/v1/campaigns/{campaign_id}/coupons", str(first_user), str(users), key, "1")


def issue_again(campaign_id: str, users: int, key: str) -> tuple[str, ...]:
    """Ask for coupons for users who have one, in no order: those who come together did not get theirs together."""
    return ("issue", f"/v1/campaigns/{campaign_id}/coupons", "0", str(users), key, str(FAR_APART))


def redeem(codes: Path, order: str) -> tuple[str, ...]:
    """Redeem the codes in a file, one after the other; an order's id is `order` and its number."""
    return ("redeem", str(codes), order)


def crowd(campaign_id: str, users: int, collectors: int) -> tuple[str, ...]:
    """Ask for coupons for users over and over, and every 50th time for one of the collectors."""
    return ("crowd", f"/v1/campaigns/{campaign_id}/coupons", str(users), str(collectors))


def visit(port: int, wishes: tuple[str, ...], connections: int, seconds: float, core: int) -> Visit:
    """Send the people for that long. Raises CommandError."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with visiting(port, wishes, connections, seconds, core) as wrk:
        said = last_words(wrk, seconds)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return read_visit(said, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def last_words(wrk: subprocess.Popen[str], seconds: float) -> str:
    """What it says at the end of a visit of that long. Raises CommandError if it does not come to one."""
    try:
        return wrk.communicate(timeout=seconds + END_TIMEOUT_S)[0]
    except subprocess.TimeoutExpired as error:
        raise CommandError("wrk did not come to its end", ExitCode.REFUSED) from error


@contextmanager
def visiting(
    port: int, wishes: tuple[str, ...], connections: int, seconds: float, core: int, launcher: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """The people, for at most that long; they are gone when the block ends. Raises CommandError.

    `launcher` stands before the command, as `chrt` does.
    """
    command = (
        *launcher,
        *("wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds:.0f}s"),
        *("--timeout", f"{ANSWER_TIMEOUT_S}s", "--script", str(SCRIPT), f"http://127.0.0.1:{port}", "--", *wishes),
    )
    try:
        with pinned(core):
            wrk = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                process_group=0,
            )
    except FileNotFoundError as error:
        raise CommandError(f"{command[0]} is not installed", ExitCode.REFUSED) from error
    with wrk:
        try:
            yield wrk
        finally:
            if wrk.poll() is None:
                wrk.kill()


def read_visit(said: str, cpu_s: float) -> Visit:
    """Read wrk's last line. Raises CommandError with what it said instead."""
    lines = said.strip().splitlines() or ["nothing"]
    try:
        found = json.loads(lines[-1])
    except ValueError as error:
        raise CommandError(f"wrk broke off: {lines[-1]}", ExitCode.REFUSED) from error
    answers = Answers(found["requests"], found["refused"], found["broken"])
    return Visit(answers, found["seconds"], found["p50_ms"], found["p99_ms"], cpu_s)
