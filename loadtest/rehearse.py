"""Why: `make rehearse` answers one question before the day comes: would we have stood where others fell?

Ends with 0: every promise kept · 1: one broken, or the service refused · 2: bad arguments · 3: no service answers.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from loadtest import incident
from loadtest.director import Director
from loadtest.evidence import Evidence
from loadtest.intervals import intervals
from loadtest.own_service import own_service
from loadtest.plan import Plan, merchants_for
from loadtest.report import facts, write_report
from loadtest.verdict import Check, judge
from service.cli.failures import CommandError, ExitCode
from service.settings import is_loopback

FEWEST_HOURS: Final = 6.0
"""The pause must be over, and demand must go on, an hour before the end, when the validity is extended."""
SHORTEST_S, LONGEST_S = 5.0, 3_600.0
FEWEST_ORDERS, MOST_ORDERS = 300, 200_000
MOST_ORDERS_PER_SECOND: Final = 500
"""On average; the curve's peak is three times that, and more is not for one process of customers to offer."""
REFRESHES_PER_SECOND: Final = 4
UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.BAD_INPUT, f"rehearse: {message}\n")


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller asked for; without `url` the rehearsal starts a service of its own."""

    plan: Plan
    url: str | None
    api_key: str | None
    report: Path


def parse(arguments: Sequence[str] | None) -> Options:
    """Read the arguments; leaves with exit code 2 and one line if they cannot be used."""
    parser = _Parser(prog="rehearse", description="Replay the incident of February 2026 and judge the service by it.")
    parser.add_argument("--hours", type=float, default=incident.LAST_HOUR, help="hours of the incident to play (9)")
    parser.add_argument("--into", type=_duration_s, default=60.0, metavar="TIME", help="time to play them in (60s)")
    parser.add_argument("--orders", type=int, default=20_000, help="orders in all (20000)")
    parser.add_argument("--merchants", type=int, help="merchants (as many for each order as in the incident)")
    parser.add_argument("--seed", type=int, default=2026, help="the same seed plays the same orders (2026)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--url", help="a running service, rather than one started for the rehearsal")
    where.add_argument("--self-started", action="store_true", help="start a service for the rehearsal (the default)")
    parser.add_argument("--api-key", help="the key that the running service asks for (TIDEGATE_API_KEY)")
    parser.add_argument("--i-own-this-service", action="store_true", help="needed for a --url on another machine")
    parser.add_argument("--report", type=Path, default=Path("reports/rehearsal"), help="path of the report, no suffix")
    given = parser.parse_args(arguments)

    def demand(holds: bool, message: str) -> None:
        if not holds:
            parser.error(message)

    between = "must be between {:,.0f} and {:,.0f}".format
    demand(FEWEST_HOURS <= given.hours <= incident.LAST_HOUR, f"--hours {between(FEWEST_HOURS, incident.LAST_HOUR)}")
    demand(SHORTEST_S <= given.into <= LONGEST_S, f"--into {between(SHORTEST_S, LONGEST_S)} seconds")
    demand(FEWEST_ORDERS <= given.orders <= MOST_ORDERS, f"--orders {between(FEWEST_ORDERS, MOST_ORDERS)}")
    demand(
        given.orders <= given.into * MOST_ORDERS_PER_SECOND,
        f"--orders: at most {MOST_ORDERS_PER_SECOND:,} for each second of --into",
    )
    merchants = merchants_for(given.orders) if given.merchants is None else given.merchants
    demand(1 <= merchants <= incident.MERCHANTS, f"--merchants {between(1, incident.MERCHANTS)}")
    demand(given.url is not None or given.api_key is None, "--api-key goes with --url")
    if given.url is not None:
        host = _host(given.url)
        demand(host is not None, "--url must look like http://127.0.0.1:8000")
        demand(
            host is None or is_loopback(host) or given.i_own_this_service,
            f"--url is on another machine, {host}: add --i-own-this-service if it may be put under load",
        )
    plan = Plan(given.hours, given.into, given.orders, merchants, given.seed)
    if given.url is None:
        return Options(plan, None, None, given.report)
    api_key = given.api_key or os.environ.get("TIDEGATE_API_KEY")
    return Options(plan, given.url.rstrip("/"), api_key, given.report)


def rehearse(options: Options, console: Console) -> bool:
    """Play, judge, report; tell whether every promise was kept. Raises CommandError, httpx.HTTPError or OSError."""
    plan = options.plan
    options.report.parent.mkdir(parents=True, exist_ok=True)
    orders = plan.make_orders()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with own_service() if options.url is None else nullcontext(options.url) as url:
        with Progress(*columns, console=console, refresh_per_second=REFRESHES_PER_SECOND) as progress:
            bar = progress.add_task("Customers gather", total=plan.into_s)

            def tell(now_s: float, issued: int) -> None:
                said = f"Hour {plan.hour(now_s):.1f}: {plan.orders_by(now_s):,} demanded, {issued:,} issued"
                progress.update(bar, completed=now_s, description=said)

            evidence = Director(plan, url, options.api_key, tell).rehearse(orders)
            progress.update(bar, completed=plan.into_s, description="The tide is out")
        checks = judge(evidence)
    paths = write_report(options.report, plan, checks, intervals(plan, orders, evidence.answers), evidence)
    _show(console, options, checks, evidence)
    console.print(f"Report: {', '.join(map(str, paths))}", soft_wrap=True, highlight=False)
    return all(check.kept for check in checks)


def _show(console: Console, options: Options, checks: Sequence[Check], evidence: Evidence) -> None:
    table = Table(title="Verdict", title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    for check in checks:
        table.add_row("[green]kept[/green]" if check.kept else "[bold red]broken[/bold red]", check.promise, check.seen)
    console.print(table)
    for name, said in facts(options.plan, evidence).items():
        console.print(f"[dim]{name}:[/dim] {said}", highlight=False)
    if evidence.left:
        console.print(f"[bold red]Stopped at its deadline with {evidence.left:,} errands left.[/bold red]")


def _duration_s(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 60s, 10m or 1h")
    return float(match[1]) * UNITS[match[2]]


def _host(url: str) -> str | None:
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.hostname if parts.scheme in ("http", "https") else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse and return the exit code."""
    options = parse(arguments)
    # Asked to stop, unwind as after an error, so that no process is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    exit_code: int
    try:
        kept = rehearse(options, Console())
    except CommandError as error:
        failure, exit_code = str(error), error.exit_code
    except httpx.HTTPError as error:
        failure, exit_code = f"the service went away: {error}", ExitCode.UNREACHABLE
    except KeyboardInterrupt:
        failure, exit_code = "stopped before its end, so there is no verdict", 128 + signal.SIGINT
    except OSError as error:
        failure, exit_code = f"the report cannot be written: {error}", ExitCode.REFUSED
    else:
        return ExitCode.DONE if kept else ExitCode.REFUSED
    sys.stderr.write(f"rehearse: {failure}\n")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
