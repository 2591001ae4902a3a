"""Why: `make rehearse-overload` answers one question: does a stampede cost patience, and nothing else?

Ends with 0: every bound was kept · 1: one was not, or could not be seen · 2: bad arguments.
"""

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

import httpx
from rich.console import Console

from loadtest.bench.figures import Bound
from loadtest.bench.machine import machine
from loadtest.bench.processes import two_cores
from loadtest.bench.show import Sheet, print_sheets
from loadtest.overload import bucket, operator, outage, refusal, reopening, storm
from loadtest.overload.findings import Finding
from loadtest.overload.site import Site, open_site
from service.cli.failures import CommandError, ExitCode
from service.store.scripts import StoreError

Act = Callable[[Site], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Options:
    """What to rehearse, and for how long; times in seconds."""

    only: tuple[str, ...]
    seconds: int
    bucket_seconds: int
    outage_seconds: int
    waiters: int
    report: Path

    @property
    def acts(self) -> Mapping[str, Act]:
        """All acts by name, in their order: what may leave the breaker open comes last.

        Reopening comes first: processes that have served a stampede of late invite people as thick as that.
        """
        return {
            "reopening": partial(reopening.rehearse, waiters=self.waiters),
            "bucket": partial(bucket.rehearse, seconds=self.bucket_seconds),
            "operator": operator.rehearse,
            "refusal": partial(refusal.rehearse, seconds=self.seconds),
            "storm": partial(storm.rehearse, seconds=self.seconds),
            "hung": partial(outage.rehearse, kind="hung", seconds=self.outage_seconds),
            "killed": partial(outage.rehearse, kind="killed", seconds=self.outage_seconds),
        }


ACTS: Final = ("reopening", "bucket", "operator", "refusal", "storm", "hung", "killed")
FULL_LENGTH: Final = {"seconds": 12, "bucket_seconds": 60, "outage_seconds": 30}
"""The bounds speak of so long, and a p99 of more redemptions is steadier; less shows a change."""
BOUNDS: Final = {
    "seconds": (1, 60),
    "bucket_seconds": (1, 600),
    "outage_seconds": (1, 60),
    "waiters": (100, 20_000),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.BAD_INPUT, f"rehearse-overload: {message}\n")


def parse(arguments: Sequence[str] | None) -> Options:
    """Read the arguments; leaves with exit code 2 and one line if they cannot be used."""
    parser = _Parser(prog="rehearse-overload", description="Overload a Tidegate of its own, and hold it to its bounds.")
    parser.add_argument("--only", nargs="+", choices=ACTS, metavar="ACT", help=f"some of: {', '.join(ACTS)}")
    parser.add_argument("--seconds", type=int, default=4, help="length of each run in a storm or a pause (4)")
    parser.add_argument("--bucket-seconds", type=int, default=10, help="how long the bucket is asked for too much (10)")
    parser.add_argument("--outage-seconds", type=int, default=10, help="how long the store is away (10)")
    parser.add_argument("--waiters", type=int, default=20_000, help="people who wait for the reopening (20000)")
    parser.add_argument("--json", type=Path, default=Path("reports/overload.json"), help="report")
    lengths = " and ".join(f"--{name.replace('_', '-')} {seconds}" for name, seconds in FULL_LENGTH.items())
    parser.add_argument("--full", action="store_true", help=f"as long as the bounds ask for: {lengths}")
    given = parser.parse_args(arguments)
    if given.full:
        parser.set_defaults(**FULL_LENGTH)
        given = parser.parse_args(arguments)
    for name, (least, most) in BOUNDS.items():
        if not least <= getattr(given, name) <= most:
            parser.error(f"--{name.replace('_', '-')} must be between {least:,} and {most:,}")
    return Options(
        tuple(given.only or ACTS), given.seconds, given.bucket_seconds, given.outage_seconds, given.waiters, given.json
    )


def rehearse(options: Options, console: Console) -> bool:
    """Play the acts, show and write what was found; tell whether all was kept. Raises CommandError or OSError."""
    facts = machine()
    findings: list[Finding] = []
    with (
        tempfile.TemporaryDirectory(prefix="tidegate-overload-") as folder,
        console.status("starting") as status,
        open_site(Path(folder), two_cores()) as site,
    ):
        for name, act in options.acts.items():
            if name in options.only:
                status.update(name)
                findings += _seen_through(name, act, site)
    write(options.report, findings, facts)
    print_sheets(console, [sheet(findings)], facts)
    console.print(f"Report: {options.report}", highlight=False)
    return all(finding.kept for finding in findings)


def _seen_through(name: str, act: Act, site: Site) -> Iterator[Finding]:
    """What the act finds, and one finding more where it broke off: the others go on."""
    try:
        site.reopen()
        yield from act(site)
    except (CommandError, httpx.HTTPError, StoreError) as error:
        yield Finding(f"The act {name}, seen through", Bound(100, "%", True), None, str(error))


def sheet(findings: Sequence[Finding]) -> Sheet:
    """The findings as a table."""
    rows = [(one.promise, str(one.bound), _seen(one), "ok" if one.kept else "missed", one.how) for one in findings]
    return Sheet("Overload", ("promise", "bound", "seen", "kept", "how it was seen"), rows, range(1, 3))


def write(report: Path, findings: Sequence[Finding], facts: Mapping[str, str]) -> None:
    """Write the findings as JSON. Raises OSError."""
    found = [asdict(one) | {"bound": str(one.bound), "kept": one.kept} for one in findings]
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps({"machine": facts, "findings": found}, indent=1, ensure_ascii=False) + "\n")


def _seen(finding: Finding) -> str:
    return "-" if finding.value is None else f"{finding.value:.4g} {finding.bound.unit}".rstrip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Rehearse and return the exit code."""
    options = parse(arguments)
    # Asked to stop, unwind as after an error, so that no process is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return ExitCode.DONE if rehearse(options, Console()) else ExitCode.REFUSED
    except CommandError as error:
        failure, exit_code = str(error), error.exit_code
    except (httpx.HTTPError, StoreError, OSError) as error:
        failure, exit_code = f"Tidegate went away: {error}", ExitCode.UNREACHABLE
    except KeyboardInterrupt:
        failure, exit_code = "stopped", ExitCode.REFUSED
    sys.stderr.write(f"rehearse-overload: {failure}\n")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
