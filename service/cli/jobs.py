"""Why: what takes a while is watched from the shell: the long jobs and their progress."""

from typing import Annotated
from urllib.parse import quote

import typer

from service.cli import show
from service.cli.failures import CommandError, ExitCode
from service.cli.follow import follow_job
from service.cli.options import LOCAL, PANEL, ApiKey, AsJson, Url
from service.cli.remote import Remote

jobs = typer.Typer(no_args_is_help=True, help="List and show long jobs: extensions, undoings, imports, recounts.")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.add_typer(jobs, name="jobs", rich_help_panel=PANEL)


@jobs.command("list")
def list_jobs(url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List the long jobs, the newest first."""
    show.jobs(Remote(url, api_key).get("/v1/jobs"), as_json)


@jobs.command("show")
def show_job(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.")],
    follow: Annotated[bool, typer.Option("--follow", help="Stay until it has ended, with its progress.")] = False,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show how far a long job is, and why it has failed.

    [dim]Example[/dim]

    [cyan]tidegate jobs show extension-spring-festival-1 --follow[/cyan]
    """
    service = Remote(url, api_key)
    found = service.get(f"/v1/jobs/{quote(job, safe='')}")
    if follow:
        found = follow_job(service, found, quiet=as_json)
    show.jobs(found if as_json else {"jobs": [found]}, as_json)
    if found["status"] == "failed":
        raise CommandError(f"the job {found['id']} failed: {found['error']}", ExitCode.REFUSED, found)
