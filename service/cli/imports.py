"""Why: a merchant's codes lie in a file on somebody's machine; it is sent, and followed until every line was judged."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import quote

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from service.cli import show
from service.cli.failures import CommandError, ExitCode
from service.cli.follow import follow_job
from service.cli.operate import CampaignId
from service.cli.options import LOCAL, PANEL, ApiKey, AsJson, Url
from service.cli.remote import Remote

PIECE_BYTES: Final = 64 * 1024


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("import", rich_help_panel=PANEL)(import_codes)


def import_codes(
    campaign: CampaignId,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="CSV of one column: codes.")],
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Import a merchant's own codes into a draft created with "codes": "imported". All of them, or none.

    [dim]Example[/dim]

    [cyan]tidegate import summer-sale codes.csv[/cyan]
    """
    service = Remote(url, api_key)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), disable=as_json) as progress:
        bar = progress.add_task("Sending", total=file.stat().st_size)

        def pieces() -> Iterator[bytes]:
            with file.open("rb") as content:
                while piece := content.read(PIECE_BYTES):
                    progress.advance(bar, len(piece))
                    yield piece

        job = service.upload(f"/v1/campaigns/{quote(campaign, safe='')}/imports", pieces())
    job = follow_job(service, job, quiet=as_json)
    show.jobs(job if as_json else {"jobs": [job]}, as_json)
    if job["status"] == "failed":
        raise CommandError(f"nothing was imported: {job['error']}", ExitCode.REFUSED, job)
