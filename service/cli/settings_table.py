"""Why: the README's table of settings is written by the class that reads them, so that it cannot lie."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from pydantic import BaseModel

from service.cli.failures import CommandError, ExitCode
from service.domain.breaker import BreakerPolicy
from service.domain.saturation import Threshold
from service.settings import Settings, variable

BEGIN: Final = "<!-- settings:begin -->"
END: Final = "<!-- settings:end -->"
BREAKER: Final = {
    "queue_wait": "Seconds that requests wait for their batch, in the mean of a second",
    "queue_standing": "Seconds that even the luckiest request of 100 ms waits for its batch",
    "in_flight": "Requests in flight, as a share of the limit learned from their times",
    "store_call_time": "Seconds that the slowest store calls take",
    "store_silence": "Seconds that the store owes an answer",
    "store_timeouts": "Share of store calls that time out, between 0 and 1",
    "store_failures": "Share of store calls that fail, between 0 and 1",
    "event_loop_lag": "Seconds that the event loop runs late",
    "process_cpu": "Cores that the process keeps busy; one is an event loop at its peak",
    "store_memory": "Share of its `maxmemory` that the store uses",
    "store_disk_delay": "Writes to disk a second that the store had to wait for (`aof_delayed_fsync`)",
    "job_wait": "Seconds that RQ's oldest job has been waiting",
    "redemption_backlog": "Requests to redeem that wait in all processes together",
    "hold_after_ms": "How long the store may owe an answer until nobody is let in before it comes, in milliseconds.",
    "samples_to_trip": "Samples in a row, 100 ms apart, that must be over before the breaker trips.",
    "minimum_pause_ms": "First pause, in milliseconds; it doubles when the breaker trips again soon.",
    "maximum_pause_ms": "Longest pause, in milliseconds.",
    "pause_jitter_permille": "By how much at most, in a thousandth, a pause is made longer at random.",
    "well_before_reopening_ms": "How long all signals must be well before issuance reopens, in milliseconds.",
    "ramp_ms": "How long reopening takes from the first users to all, in milliseconds.",
    "ramp_start_permille": "Users in a thousand that are let in first when issuance reopens.",
    "maximum_ramp_halvings": "How often at most the ramp is halved when the breaker trips on it.",
    "trip_memory_ms": "How soon after reopening a trip counts as the same trouble, in milliseconds.",
}
"""The domain's breaker knows no settings, so its figures are explained here; one without a word fails the check."""


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("settings", hidden=True)(settings)


def settings(
    write: Annotated[Path | None, typer.Option(help="Write the table between the marks in this file.")] = None,
    check: Annotated[Path | None, typer.Option(help="Fail when the table in this file is stale.")] = None,
) -> None:
    """Print the table of all settings in Markdown."""
    if write is not None:
        write.write_text(_with_table(write), encoding="utf-8")
    elif check is None:
        typer.echo(table())
    elif check.read_text(encoding="utf-8") != _with_table(check):
        raise CommandError(
            f"the settings in {check} are stale; run tidegate settings --write {check}", ExitCode.REFUSED
        )


def table() -> str:
    """Return the table of all settings in Markdown."""
    rows = (f"| `{name}` | {default} | {meaning} |" for name, default, meaning in _rows())
    return "\n".join(("| variable | default | what it does |", "|---|---|---|", *rows))


def _rows() -> Iterator[tuple[str, str, str]]:
    for name, field in Settings.model_fields.items():
        yield from _leaves((name,), field.default, field.description or "")


def _leaves(path: tuple[str, ...], default: Any, meaning: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(default, BaseModel):
        for name, field in type(default).model_fields.items():
            yield from _leaves((*path, name), getattr(default, name), field.description or "")
    elif isinstance(default, BreakerPolicy):
        for part in dataclasses.fields(default):
            yield from _leaves((*path, part.name), getattr(default, part.name), BREAKER[part.name])
    elif isinstance(default, Threshold):
        yield variable(*path, "trip"), f"`{default.trip}`", f"{meaning}: the breaker trips at this value or above."
        yield variable(*path, "clear"), f"`{default.clear}`", f"{meaning}: healthy again below this value."
    else:
        yield variable(*path), "" if default is None or default == () else f"`{default}`", meaning


def _with_table(file: Path) -> str:
    before, begin, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise CommandError(f"{file} has no {BEGIN} … {END}", ExitCode.BAD_INPUT)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"
