"""Why: an operator records when redemption was down, so that campaigns that stop the clock give the time back."""

from typing import Annotated

import typer

from service.cli import show
from service.cli.extend import moment_of
from service.cli.options import LOCAL, PANEL, ApiKey, AsJson, Reason, Url
from service.cli.remote import Remote


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(rich_help_panel=PANEL)(outage)


def outage(
    begin: Annotated[str, typer.Option("--from", help="When redemption went down, with its offset.")],
    end: Annotated[str, typer.Option("--to", help="When it was up again.")],
    reason: Reason,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Record an outage of redemption: where a campaign stops the clock, its coupons are valid for longer by it.

    [dim]Example[/dim]

    [cyan]tidegate outage --from 2026-02-06T08:00:00+08:00 --to 2026-02-06T09:30:00+08:00 --reason "tills down"[/cyan]
    """
    body = {"from": moment_of("from", begin), "to": moment_of("to", end), "reason": reason}
    show.outage(Remote(url, api_key).post("/v1/outages", body), as_json)
