"""Why: the commands that steer a running Tidegate: its campaigns, their validity, its state."""

import json
from collections.abc import Callable
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from service.cli import show
from service.cli.failures import CommandError, ExitCode
from service.cli.options import LOCAL, PANEL, ApiKey, AsJson, Reason, Url
from service.cli.remote import Remote

LONGEST_FILE: Final = 16 * 1024
"""No service takes a longer body."""
STATUS_CHANGES: Final = {
    "start": "Let a campaign issue coupons: now, or when its window opens.",
    "pause": "Stop issuing for a while; coupons that are out can still be redeemed.",
    "resume": "Issue again after a pause.",
    "stop": "Stop issuing for good; coupons that are out can still be redeemed.",
}

CampaignId = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Id of the campaign.")]

campaigns = typer.Typer(no_args_is_help=True, help="Create, list and show campaigns; start, pause, resume, stop them.")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.add_typer(campaigns, name="campaign", rich_help_panel=PANEL)
    app.command(rich_help_panel=PANEL)(status)


@campaigns.command()
def create(
    file: Annotated[typer.FileText, typer.Argument(encoding="utf-8", help="The campaign in JSON; - reads stdin.")],
    start: Annotated[bool, typer.Option("--start", help="Start it at once.")] = False,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Create a campaign from a file; what it must hold is under /docs of the service.

    [dim]Example[/dim]

    [cyan]tidegate campaign create spring.json --start[/cyan]
    """
    service = Remote(url, api_key)
    campaign = service.post("/v1/campaigns", _read_campaign(file))
    if start:
        campaign = service.post(f"{_path(campaign['id'])}/start", {"reason": "started at its creation"})
    show.campaign(campaign, as_json)


@campaigns.command("list")
def list_campaigns(url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List all campaigns with what is left of each."""
    show.campaigns(Remote(url, api_key).get("/v1/campaigns"), as_json)


@campaigns.command("show")
def show_campaign(campaign: CampaignId, url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Show one campaign: its terms and its live counters."""
    show.campaign(Remote(url, api_key).get(_path(campaign)), as_json)


def _status_change(action: str) -> Callable[..., None]:
    def change(
        campaign: CampaignId,
        reason: Reason = "operator",
        url: Url = LOCAL,
        api_key: ApiKey = None,
        as_json: AsJson = False,
    ) -> None:
        show.campaign(Remote(url, api_key).post(f"{_path(campaign)}/{action}", {"reason": reason}), as_json)

    return change


for _action, _help in STATUS_CHANGES.items():
    campaigns.command(_action, help=_help)(_status_change(_action))


def status(url: Url = LOCAL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Show whether coupons are being issued, and why not."""
    show.status(Remote(url, api_key).get("/v1/status"), as_json)


def _path(campaign: str) -> str:
    return f"/v1/campaigns/{quote(campaign, safe='')}"


def _read_campaign(file: typer.FileText) -> dict[str, Any]:
    try:
        text = file.read(LONGEST_FILE + 1)
        campaign = json.loads(text)
    except ValueError as error:
        raise CommandError(f"the campaign file is not JSON: {error}", ExitCode.BAD_INPUT) from error
    if len(text) > LONGEST_FILE or not isinstance(campaign, dict):
        raise CommandError("the campaign file must hold one JSON object, at most 16 KiB", ExitCode.BAD_INPUT)
    return campaign
