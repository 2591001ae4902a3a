"""Why: `make bench` answers one question: is Tidegate still as fast as its README says, beside what others would build?

Ends with 0: every bound reached that was measured · 1: one missed, or a coupon was wrong · 2: bad arguments.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import httpx
from rich.console import Console

from loadtest import incident
from loadtest.bench.figures import figures
from loadtest.bench.growth import FEWEST
from loadtest.bench.incident import LAST_REPORT, last_figure
from loadtest.bench.machine import machine
from loadtest.bench.measure import Task, measure
from loadtest.bench.samples import Group
from loadtest.bench.show import print_sheets, sheets, write
from service.cli.failures import CommandError, ExitCode
from service.store.scripts import StoreError

CONNECTIONS: Final = (64, 256)
ROUNDS, SECONDS, COUPONS = 5, 4, incident.ALL_ORDERS
QUICK_ROUNDS, QUICK_SECONDS, QUICK_COUPONS = 2, 2, 300_000
MOST_ROUNDS, MOST_SECONDS = 10, 10
"""Longer, and the campaigns that stand ready for the loads would sell out."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.BAD_INPUT, f"bench: {message}\n")


def parse(arguments: Sequence[str] | None) -> tuple[Task, Path]:
    """Read the arguments; leaves with exit code 2 and one line if they cannot be used."""
    parser = _Parser(prog="bench", description="Measure Tidegate beside what others would build, on two cores.")
    parser.add_argument("--quick", action="store_true", help="short rounds and a small campaign: to see that it works")
    parser.add_argument(
        "--only", nargs="+", choices=[str(one) for one in Group], metavar="NAME", help=f"some of: {', '.join(Group)}"
    )
    parser.add_argument("--rounds", type=int, help=f"interleaved rounds ({ROUNDS})")
    parser.add_argument("--seconds", type=int, help=f"length of each run ({SECONDS})")
    parser.add_argument("--coupons", type=int, help=f"size of the campaign that is weighed ({COUPONS})")
    parser.add_argument("--profile", action="store_true", help="sample the API under load, with py-spy")
    parser.add_argument("--json", type=Path, default=Path("reports/bench.json"), help="report; Markdown goes beside it")
    given = parser.parse_args(arguments)
    usual = (QUICK_ROUNDS, QUICK_SECONDS, QUICK_COUPONS) if given.quick else (ROUNDS, SECONDS, COUPONS)
    asked = (given.rounds, given.seconds, given.coupons)
    rounds, seconds, coupons = (usual[at] if asked[at] is None else asked[at] for at in range(3))
    for name, value, least, most in (
        ("rounds", rounds, 1, MOST_ROUNDS),
        ("seconds", seconds, 1, MOST_SECONDS),
        ("coupons", coupons, FEWEST, incident.ALL_ORDERS),
    ):
        if not least <= value <= most:
            parser.error(f"--{name} must be between {least:,} and {most:,}")
    groups = tuple(map(Group, given.only or Group))
    return Task(groups, rounds, seconds, CONNECTIONS, coupons, given.profile), given.json


def bench(task: Task, report: Path, console: Console) -> bool:
    """Measure, show, write; tell whether every bound was reached. Raises as `measure` does."""
    facts = machine()
    with console.status("starting") as status:
        findings = measure(task, status.update)
    found = [*figures(findings, task.groups), last_figure(LAST_REPORT)]
    attempts = [sample.attempt for sample in findings.samples] + [paced.attempt for paced in findings.paced]
    repeated = sum(attempts) - len(attempts)
    facts["Rounds"] = f"{task.rounds} interleaved, {task.seconds} s each after a warm-up, fsync always"
    facts["Repeated"] = f"{repeated} runs, because the breaker paused issuance"
    paths = write(report, findings, found, facts)
    print_sheets(console, sheets(findings, found), facts)
    console.print(f"Report: {', '.join(map(str, paths))}", highlight=False)
    return all(figure.is_reached for figure in found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Bench and return the exit code."""
    task, report = parse(arguments)
    # Asked to stop, unwind as after an error, so that no process is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return ExitCode.DONE if bench(task, report, Console()) else ExitCode.REFUSED
    except CommandError as error:
        failure, exit_code = str(error), error.exit_code
    except (httpx.HTTPError, StoreError) as error:
        failure, exit_code = f"Tidegate went away: {error}", ExitCode.UNREACHABLE
    except OSError as error:
        failure, exit_code = f"{error}", ExitCode.REFUSED
    except KeyboardInterrupt:
        failure, exit_code = "stopped", ExitCode.REFUSED
    sys.stderr.write(f"bench: {failure}\n")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
