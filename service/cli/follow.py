"""Why: an extension over many coupons takes a while to be written through, and whoever asked wants to see it move."""

import time
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.cli.failures import CommandError, ExitCode
from service.cli.remote import Remote

POLL_S: Final = 0.25
SETTLED: Final = ("completed", "failed", "undone")
STALLED_AFTER_S: Final = 120.0
"""Longest wait for the next step, also while the service cannot be asked."""


def follow_extension(service: Remote, extension: dict[str, Any], quiet: bool) -> dict[str, Any]:
    """Poll until the extension is completed or failed, and return it. Raises CommandError when it stops moving."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    deadline_s = time.monotonic() + STALLED_AFTER_S
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task("Extending", total=None)
        while True:
            step = extension["undo"] or extension
            progress.update(bar, completed=step["done"], total=step["total"] or None)
            if extension["status"] in SETTLED:
                return extension
            time.sleep(POLL_S)
            latest = _ask(service, extension)
            if latest != extension:
                extension, deadline_s = latest, time.monotonic() + STALLED_AFTER_S
            elif time.monotonic() > deadline_s:
                raise CommandError(
                    f"the extension {extension['id']} holds, but has not moved on for {STALLED_AFTER_S:.0f} s; "
                    "is a worker running?",
                    ExitCode.UNREACHABLE,
                    extension,
                )


def _ask(service: Remote, extension: dict[str, Any]) -> dict[str, Any]:
    try:
        return service.get(f"/v1/extensions/{extension['id']}")
    except CommandError as error:
        # A service that restarts or sheds load says nothing about the extension: ask again until it stalls.
        if error.exit_code is ExitCode.UNREACHABLE or error.problem.get("status", 0) >= 500:
            return extension
        raise
