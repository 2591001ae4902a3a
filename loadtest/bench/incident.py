"""Why: ten million coupons in nine hours were too much for others; `make bench-incident` issues them over real HTTP.

The people want more than there is, and some of them more than one may have, until everything is gone. Ends with 0: all
was kept, in time · 1: something was not · 2: bad arguments.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import httpx
from rich.console import Console

from loadtest import incident
from loadtest.bench.campaigns import open_campaign
from loadtest.bench.figures import Bound, Figure
from loadtest.bench.machine import machine
from loadtest.bench.people import crowd, read_visit, visiting
from loadtest.bench.processes import cpu_s, pinned, two_cores
from loadtest.bench.systems import Tidegate, tidegate
from loadtest.bench.tally import Answers
from loadtest.plan import COLLECTING_SHARE, ORDERS_PER_COLLECTOR, ORDERS_PER_CUSTOMER
from loadtest.verdict import Check
from service.cli.failures import CommandError, ExitCode
from service.store.keys import BREAKER_EVENTS

CAMPAIGN: Final = "incident"
BOUND: Final = Bound(10, "min")
FEWEST, MOST = 1_000, incident.ALL_ORDERS
COLLECTORS_ASKED: Final = 200
CONNECTIONS: Final = 256
LONGEST_S: Final = 1_800
AFTERWARDS_S: Final = 3.0
"""How long people go on asking when everything is gone."""
POLL_S: Final = 1.0
TELL_S: Final = 5.0
STOP_TIMEOUT_S: Final = 30.0
DISK_BYTES_A_COUPON: Final = 1_000
LAST_REPORT: Final = Path("reports/bench-incident.json")
EXPECTED: Final = frozenset({"issued", "per_user_limit", "sold_out", "issuance_paused", "overloaded"})


@dataclass(frozen=True, slots=True)
class Replay:
    """How it went, who was busy (shares of the API's core and of the other), and what the breaker did and why."""

    coupons: int
    seconds: float
    service_share: float
    store_share: float
    transitions: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def figure(self) -> Figure:
        """The time against its bound, which nothing makes up for if a promise was broken."""
        broken = "; ".join(check.promise for check in self.checks if not check.kept)
        busy = f"API {self.service_share:.0%}; store {self.store_share:.0%}"
        return Figure(_name(self.coupons), BOUND, {"": self.seconds / 60}, broken or busy, broken)


def replay(service: Tidegate, core: int, coupons: int, console: Console) -> Replay:
    """Issue everything, and hold it against what was promised. Raises CommandError."""
    open_campaign(service.remote, CAMPAIGN, max_coupons=coupons, max_coupons_per_user=incident.MAX_COUPONS_PER_USER)
    wishes = crowd(CAMPAIGN, coupons // ORDERS_PER_CUSTOMER, _collectors(coupons))
    service_s, store_s = cpu_s(service.system.pid), cpu_s(service.store.pid)
    began_s, began_ms = time.monotonic(), time.time() * 1000
    with visiting(service.system.port, wishes, CONNECTIONS, LONGEST_S, core) as wrk:
        _watch(service, coupons, console)
        seconds = time.monotonic() - began_s
        service_s, store_s = cpu_s(service.system.pid) - service_s, cpu_s(service.store.pid) - store_s
        time.sleep(AFTERWARDS_S)
        wrk.send_signal(signal.SIGINT)
        answers = read_visit(wrk.communicate(timeout=STOP_TIMEOUT_S)[0], 0).answers
    console.print(f"{answers.requests:,} answers, {answers.refused:,} of them refusals, {answers.broken:,} broken off")
    transitions = tuple(_transitions(service, began_ms))
    for told in transitions:
        console.print(told, highlight=False)
    checks = _judge(service, coupons, answers)
    return Replay(coupons, seconds, service_s / seconds, store_s / seconds, transitions, checks)


def _transitions(service: Tidegate, began_ms: float) -> Iterator[str]:
    """What the breaker did meanwhile, with the figures that caused it: the time that it took is part of the figure."""
    history: Any = service.store.client.xrange(BREAKER_EVENTS)
    for entry_id, entry in history:
        yield told_transition((int(entry_id.partition("-")[0]) - began_ms) / 1000, json.loads(entry["data"]))


def told_transition(seconds: float, change: Mapping[str, Any]) -> str:
    """A change of the breaker in a line: when, from what to what, and the signals that were not 0."""
    signals = ", ".join(f"{signal} {value:.3g}" for signal, value in change["signals"].items() if value)
    return f"{seconds:5.0f} s  breaker {change['from']} → {change['to']}: {change['reason']} ({signals})"


def _name(coupons: int) -> str:
    return f"The incident, {coupons:,} coupons"


def _collectors(coupons: int) -> int:
    """Some people ask for far more than one may have; two in a hundred orders are theirs, as in the rehearsal."""
    return max(1, round(coupons * COLLECTING_SHARE / ORDERS_PER_COLLECTOR))


def _watch(service: Tidegate, coupons: int, console: Console) -> None:
    began_s = told_s = time.monotonic()
    told = issued = 0
    while issued < coupons:
        time.sleep(POLL_S)
        issued = _issued(service) or issued
        now_s = time.monotonic()
        if now_s - began_s > LONGEST_S:
            raise CommandError(f"{issued:,} of {coupons:,} coupons after {LONGEST_S} s", ExitCode.REFUSED)
        if now_s - told_s >= TELL_S:
            memory = service.store.memory_bytes() / 2**20
            pace = (issued - told) / (now_s - told_s)
            console.print(f"{now_s - began_s:5.0f} s  {issued:>10,} issued  {pace:>7,.0f}/s  store {memory:,.0f} MiB")
            told_s, told = now_s, issued


def _issued(service: Tidegate) -> int | None:
    """How many coupons are; None where the store owes the answer. Raises CommandError for any other refusal."""
    try:
        campaign = service.remote.get(f"/v1/campaigns/{CAMPAIGN}")
    except CommandError as error:
        if error.problem.get("reason") == "store_unavailable":
            return None
        raise
    return int(campaign["counters"]["issued"])


def _judge(service: Tidegate, coupons: int, answers: Answers) -> tuple[Check, ...]:
    assert service.system.tally is not None
    tally = service.system.tally(CAMPAIGN)
    counters = service.remote.get(f"/v1/campaigns/{CAMPAIGN}")["counters"]
    spent = incident.BUDGET_FEN - counters["budget_remaining"]
    holdings = [
        len(service.remote.get(f"/v1/campaigns/{CAMPAIGN}/users/c{number}/coupons")["coupons"])
        for number in range(min(COLLECTORS_ASKED, _collectors(coupons)))
    ]
    strange = max(0, answers.requests - sum(tally.outcomes.values()))
    told = ", ".join(f"{times:,} {outcome}" for outcome, times in tally.outcomes.items())
    return (
        Check("Never more coupons than there are", f"{tally.issued:,} of {coupons:,}", tally.issued == coupons),
        Check("Every coupon has its record", f"{tally.records:,} records", tally.records == coupons),
        Check("Issued is the sum of its states", f"error {tally.conservation_error}", tally.conservation_error == 0),
        Check("The budget is charged exactly", f"{spent:,} fen", spent == coupons * incident.COUPON_FEN),
        Check(
            "Never more coupons for a user than one may have",
            f"{max(holdings)} at most of {len(holdings):,} who asked for more",
            max(holdings) == incident.MAX_COUPONS_PER_USER,
        ),
        Check(
            "Whoever came too late was told so",
            f"{tally.outcomes.get('sold_out', 0):,} times sold out",
            tally.outcomes.get("sold_out", 0) > 0,
        ),
        Check(
            "Nobody gets an answer that should not exist",
            f"{told}, {strange:,} others",
            tally.outcomes.keys() <= EXPECTED and not strange,
        ),
        Check("Everybody gets an answer", f"{answers.broken:,} without", not answers.broken),
    )


def last_figure(report: Path) -> Figure:
    """The figure of the whole incident's replay whose report that is; one without a value where there is none."""
    try:
        last = json.loads(report.read_text())
        limits = f"{last['limited_by']} ({last['machine']['Commit']})"
        found = Figure(last["name"], BOUND, last["values"], limits, last["broken"])
    except (OSError, ValueError, KeyError):
        found = None
    if found is None or found.name != _name(MOST):
        return Figure(_name(MOST), BOUND, {}, "run make bench-incident")
    return found


def write(report: Path, done: Replay, facts: dict[str, str]) -> None:
    """Write what was found as JSON. Raises OSError."""
    figure = done.figure
    document = {"machine": facts, **asdict(figure), "replay": asdict(done)}
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.BAD_INPUT, f"bench-incident: {message}\n")


def _parse(arguments: Sequence[str] | None) -> tuple[int, Path]:
    parser = _Parser(prog="bench-incident", description="Issue the incident's coupons over HTTP, as fast as it goes.")
    parser.add_argument("--coupons", type=int, default=MOST, help=f"fewer, for a trial ({MOST})")
    parser.add_argument("--json", type=Path, default=LAST_REPORT, help="report")
    given = parser.parse_args(arguments)
    if not FEWEST <= given.coupons <= MOST:
        parser.error(f"--coupons must be between {FEWEST:,} and {MOST:,}")
    return given.coupons, given.json


def _bench(coupons: int, report: Path, console: Console) -> bool:
    cores = two_cores()
    with tempfile.TemporaryDirectory(prefix="tidegate-incident-") as folder:
        free, needed = shutil.disk_usage(folder).free, coupons * DISK_BYTES_A_COUPON
        if free < needed:
            raise CommandError(f"{folder} has {free:,} bytes free, and {needed:,} are needed", ExitCode.REFUSED)
        with tidegate(Path(folder), cores) as service, pinned(cores.load):
            done = replay(service, cores.load, coupons, console)
    figure = done.figure
    write(report, done, machine())
    for check in done.checks:
        console.print("[green]kept[/]  " if check.kept else "[bold red]broken[/]", check.promise, check.seen, sep="  ")
    console.print(f"{figure.name}: {done.seconds:.0f} s, bound {BOUND}; {figure.limited_by}", highlight=False)
    console.print(f"Report: {report}", highlight=False)
    return figure.is_reached


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay the incident and return the exit code."""
    coupons, report = _parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return ExitCode.DONE if _bench(coupons, report, Console()) else ExitCode.REFUSED
    except CommandError as error:
        failure, exit_code = str(error), error.exit_code
    except (httpx.HTTPError, OSError) as error:
        failure, exit_code = str(error), ExitCode.REFUSED
    except KeyboardInterrupt:
        failure, exit_code = "stopped", ExitCode.REFUSED
    sys.stderr.write(f"bench-incident: {failure}\n")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
