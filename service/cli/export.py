"""Why: finance takes coupons and redemptions home as a file, and sees how much of it is still to come."""

import sys
from typing import Annotated
from urllib.parse import quote

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.cli.operate import CampaignId
from service.cli.options import LOCAL, PANEL, ApiKey, Url
from service.cli.remote import Remote


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(rich_help_panel=PANEL)(export)


def export(
    campaign: CampaignId,
    redemptions: Annotated[bool, typer.Option("--redemptions", help="The redemptions instead of the coupons.")] = False,
    url: Url = LOCAL,
    api_key: ApiKey = None,
) -> None:
    """Write a campaign's coupons, or its redemptions, as CSV to stdout.

    [dim]Example[/dim]

    [cyan]tidegate export spring-festival --redemptions > redemptions.csv[/cyan]
    """
    what = "redemptions" if redemptions else "coupons"
    path = f"/v1/campaigns/{quote(campaign, safe='')}/{what}.csv"
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Remote(url, api_key).download(path) as file, Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"Exporting {what}", total=file.rows, completed=-1)
        for text in file.pieces:
            sys.stdout.write(text)
            # No cell holds a line break: a line is a row, and the first one names the columns.
            progress.advance(bar, text.count("\n"))
