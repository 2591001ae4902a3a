"""Why: what is done job by job takes a while, and whoever asked for it wants to see it move."""

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
    stalled = f"the extension {extension['id']} holds, but"
    return _follow(service, f"/v1/extensions/{extension['id']}", extension, "Extending", stalled, quiet)


def follow_job(service: Remote, job: dict[str, Any], quiet: bool) -> dict[str, Any]:
    """Poll until the job is completed or failed, and return it. Raises CommandError when it stops moving."""
    title = job["kind"].capitalize()
    return _follow(service, f"/v1/jobs/{job['id']}", job, title, f"the job {job['id']}", quiet)


def _follow(service: Remote, path: str, found: dict[str, Any], title: str, stalled: str, quiet: bool) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    deadline_s = time.monotonic() + STALLED_AFTER_S
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        bar = progress.add_task(title, total=None)
        while True:
            step = found.get("undo") or found
            progress.update(bar, completed=step["done"], total=step["total"] or None)
            if found["status"] in SETTLED:
                return found
            time.sleep(POLL_S)
            latest = _ask(service, path, found)
            if latest != found:
                found, deadline_s = latest, time.monotonic() + STALLED_AFTER_S
            elif time.monotonic() > deadline_s:
                raise CommandError(
                    f"{stalled} has not moved on for {STALLED_AFTER_S:.0f} s; is a worker running?",
                    ExitCode.UNREACHABLE,
                    found,
                )


def _ask(service: Remote, path: str, found: dict[str, Any]) -> dict[str, Any]:
    try:
        return service.get(path)
    except CommandError as error:
        # A service that restarts or sheds load says nothing about the work: ask again until it stalls.
        if error.exit_code is ExitCode.UNREACHABLE or error.problem.get("status", 0) >= 500:
            return found
        raise
