"""Why: an operator makes coupons valid for longer in one command: all or some, tried first, and taken back."""

from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from service.cli import show
from service.cli.failures import CommandError, ExitCode
from service.cli.follow import follow_extension
from service.cli.options import LOCAL, PANEL, ApiKey, AsJson, Reason, Url
from service.cli.remote import Remote

SCOPE: Final = "Whom it concerns; without any, every coupon"


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(rich_help_panel=PANEL)(extend)


def extend(
    reason: Reason,
    campaign: Annotated[str | None, typer.Argument(metavar="CAMPAIGN", help="Id of the campaign.")] = None,
    to: Annotated[str | None, typer.Option(help="New expiry, with its offset: 2027-02-28T23:59:59+08:00.")] = None,
    undo: Annotated[str | None, typer.Option("--undo", help="Take that extension back instead: its id.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would change.")] = False,
    include_expired: Annotated[
        bool, typer.Option("--include-expired", help="Bring coupons back that are over, if the budget covers them.")
    ] = False,
    issued_from: Annotated[str | None, typer.Option(help="Issued then or later.", rich_help_panel=SCOPE)] = None,
    issued_to: Annotated[str | None, typer.Option(help="Issued before then.", rich_help_panel=SCOPE)] = None,
    expiring_before: Annotated[str | None, typer.Option(help="Expiring before then.", rich_help_panel=SCOPE)] = None,
    user: Annotated[
        list[str] | None, typer.Option(help="Of that user; may be said again.", rich_help_panel=SCOPE)
    ] = None,
    merchant: Annotated[
        str | None, typer.Option(help="Last reserved or redeemed there.", rich_help_panel=SCOPE)
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Stay until it is written through, with its progress.")
    ] = False,
    url: Url = LOCAL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Extend the validity of a campaign's coupons. For all, it holds at once; it never shortens; twice changes nothing.

    [dim]Examples[/dim]

    [cyan]tidegate extend spring-festival --to 2027-02-28T23:59:59+08:00 --reason "too many visitors" --follow[/cyan]

    [cyan]tidegate extend --undo spring-festival.1 --reason "the wrong year"[/cyan]
    """
    service = Remote(url, api_key)
    moments = {"issued_from": issued_from, "issued_to": issued_to, "expiring_before": expiring_before}
    scope: dict[str, Any] = {name: moment_of(name, text) for name, text in moments.items() if text is not None}
    scope |= {name: value for name, value in (("user_ids", user), ("merchant_id", merchant)) if value}
    if undo is not None:
        if campaign or to or scope or dry_run or include_expired:
            raise CommandError("--undo takes a whole extension back: leave the rest out", ExitCode.BAD_INPUT)
        extension = service.post(f"/v1/extensions/{quote(undo, safe='')}/undo", {"reason": reason})
    elif campaign is None or to is None:
        raise CommandError("say which campaign, and --to when; or --undo an extension", ExitCode.BAD_INPUT)
    else:
        body: dict[str, Any] = {"expires_at": moment_of("to", to), "reason": reason}
        body |= {"dry_run": True} if dry_run else {}
        body |= {"include_expired": True} if include_expired else {}
        body |= {"scope": scope} if scope else {}
        extension = service.post(f"/v1/campaigns/{quote(campaign, safe='')}/extensions", body)
    if follow:
        extension = follow_extension(service, extension, quiet=as_json)
    show.extension(extension, as_json)
    if extension["status"] == "failed":
        raise CommandError(f"the extension {extension['id']} failed", ExitCode.REFUSED, extension)


def moment_of(option: str, text: str) -> str:
    """The option's instant as the service reads it. Raises CommandError."""
    name = f"--{option.replace('_', '-')}"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(
            f"{name}: {text} is no RFC 3339 time such as 2027-02-28T23:59:59+08:00", ExitCode.BAD_INPUT
        ) from error
    if moment.tzinfo is None:
        raise CommandError(f"{name}: {text} needs its offset, such as {text}+08:00 or {text}Z", ExitCode.BAD_INPUT)
    return moment.isoformat()
