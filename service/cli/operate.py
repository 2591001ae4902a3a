"""Why: the commands that steer a running Tidegate: its campaigns, their validity, its state."""

import json
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from service.cli import show
from service.cli.failures import CommandError, ExitCode
from service.cli.follow import follow_extension
from service.cli.remote import Remote

PANEL: Final = "Operate"
LOCAL: Final = "http://127.0.0.1:8000"
LONGEST_FILE: Final = 16 * 1024
"""No service takes a longer body."""

Url = Annotated[str, typer.Option(envvar="TIDEGATE_URL", help="The running service.")]
ApiKey = Annotated[str | None, typer.Option(envvar="TIDEGATE_API_KEY", help="Key that the service asks for.")]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
CampaignId = Annotated[str, typer.Argument(metavar="CAMPAIGN", help="Id of the campaign.")]

campaigns = typer.Typer(no_args_is_help=True, help="Create, list and show campaigns; start, pause, resume, stop them.")


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    app.add_typer(campaigns, name="campaign", rich_help_panel=PANEL)
    app.command(rich_help_panel=PANEL)(extend)
    app.command(rich_help_panel=PANEL)(status)


@campaigns.command()
def create(
    file: Annotated[typer.FileText, typer.Argument(help="The campaign in JSON; - reads stdin.")],
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


@campaigns.command()
def start(
    campaign: CampaignId,
    reason: Reason = "operator",
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let a campaign issue coupons: now, or when its window opens."""
    show.campaign(Remote(url, api_key).post(f"{_path(campaign)}/start", {"reason": reason}), as_json)


@campaigns.command()
def pause(
    campaign: CampaignId,
    reason: Reason = "operator",
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Stop issuing for a while; coupons that are out can still be redeemed."""
    show.campaign(Remote(url, api_key).post(f"{_path(campaign)}/pause", {"reason": reason}), as_json)


@campaigns.command()
def resume(
    campaign: CampaignId,
    reason: Reason = "operator",
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Issue again after a pause."""
    show.campaign(Remote(url, api_key).post(f"{_path(campaign)}/resume", {"reason": reason}), as_json)


@campaigns.command()
def stop(
    campaign: CampaignId,
    reason: Reason = "operator",
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Stop issuing for good; coupons that are out can still be redeemed."""
    show.campaign(Remote(url, api_key).post(f"{_path(campaign)}/stop", {"reason": reason}), as_json)


def extend(
    campaign: CampaignId,
    to: Annotated[str, typer.Option(help="New expiry, with its offset: 2026-02-28T23:59:59+08:00.")],
    reason: Reason,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would change.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Stay until it is written through, with its progress.")
    ] = False,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Extend the validity of every coupon of a campaign. It holds at once; never shortens; twice changes nothing.

    [dim]Example[/dim]

    [cyan]tidegate extend spring-festival --to 2026-02-28T23:59:59+08:00 --reason "too many visitors" --follow[/cyan]
    """
    service = Remote(url, api_key)
    body: dict[str, Any] = {"expires_at": _moment(to), "reason": reason}
    extension = service.post(f"{_path(campaign)}/extensions", body | ({"dry_run": True} if dry_run else {}))
    if follow and not dry_run:
        extension = follow_extension(service, extension, quiet=as_json)
    show.extension(extension, as_json)
    if extension["status"] == "failed":
        raise CommandError(f"the extension {extension['id']} failed", ExitCode.REFUSED, extension)


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


def _moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(
            f"--to: {text} is no RFC 3339 time such as 2026-02-28T23:59:59+08:00", ExitCode.BAD_INPUT
        ) from error
    if moment.tzinfo is None:
        raise CommandError(f"--to: {text} needs its offset, such as {text}+08:00 or {text}Z", ExitCode.BAD_INPUT)
    return moment.isoformat()
