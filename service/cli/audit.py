"""Why: anybody who must answer for the money can have every coupon counted again, from the events alone."""

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service.cli.failures import CommandError, ExitCode
from service.domain.campaign import Campaign
from service.domain.coupon import Counters
from service.settings import Settings, read_settings, variable
from service.store.audit import Audit, ShardAudit
from service.store.catalogue import Catalogue
from service.store.client import connect
from service.store.events import EventStore
from service.store.export import Exporter
from service.store.scripts import Scripts, StoreError, StoreTimeout, StoreUnreachable

PANEL: Final = "Operate"
STORE_TIMEOUT_MS: Final = 10_000
NO_CODES: Final = b""
"""The audit names coupons by shard and sequence: a code in a terminal could be redeemed by whoever reads it."""
FIGURES: Final = ("issued", "outstanding", "reserved", "redeemed", "expired", "deactivated", "budget_committed")

Audits = list[tuple[Campaign, ShardAudit]]


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command(rich_help_panel=PANEL)(audit)


def audit(
    campaign: Annotated[str | None, typer.Argument(metavar="[CAMPAIGN]", help="Only this campaign.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help=f"Folder for data.  [dim]{variable('data_dir')}, .tidegate[/dim]")
    ] = None,
    store_url: Annotated[
        str | None, typer.Option(help=f"Another store.  [dim]{variable('store_url')}, the one of `tidegate up`[/dim]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")] = False,
) -> None:
    """Rebuild every counter from day files and events, and compare with what the store says.

    It needs the folder of the day files, so it runs where the worker runs. It ends with 1 when anything differs, and
    names the coupons by shard and sequence.
    """
    settings = read_settings(data_dir=data_dir, store_url=store_url)
    try:
        audits = asyncio.run(_audit(settings, campaign))
    except (StoreUnreachable, StoreTimeout) as error:
        raise CommandError(f"the store does not answer: {error}", ExitCode.UNREACHABLE) from error
    except StoreError as error:
        raise CommandError(f"the store cannot be used: {error}", ExitCode.REFUSED) from error
    if as_json:
        sys.stdout.write(json.dumps([_told(*each) for each in audits]) + "\n")
    else:
        _show(audits, Console())
    if not all(found.is_sound for _, found in audits):
        raise typer.Exit(ExitCode.REFUSED)


async def _audit(settings: Settings, campaign_id: str | None) -> Audits:
    client = connect(settings.effective_store_url, STORE_TIMEOUT_MS)
    try:
        scripts, events = Scripts(client), EventStore(client)
        catalogue = Catalogue(client, scripts, NO_CODES)
        exporter = Exporter(scripts, events, settings.export_directory, settings.export.retention_ms)
        wanted = await catalogue.list() if campaign_id is None else [await catalogue.load(campaign_id)]
        at_work = Audit(scripts, events, exporter)
        audits: Audits = []
        for campaign in wanted:
            if campaign is None:
                raise CommandError(f"there is no campaign {campaign_id}", ExitCode.REFUSED)
            audits += [(campaign, found) async for found in at_work.shards(campaign)]
        return audits
    finally:
        await client.aclose()


def _told(campaign: Campaign, found: ShardAudit) -> dict[str, Any]:
    return {"campaign_id": campaign.id, "sound": found.is_sound, **asdict(found)}


def _show(audits: Audits, console: Console) -> None:
    table = Table("Campaign", "Shard", "Says", box=None, header_style="dim", pad_edge=False)
    for name in FIGURES:
        table.add_column(name.replace("_", " ").capitalize(), justify="right")
    for campaign, found in audits:
        if found.told is None or found.kept is None:
            continue
        agree = found.told == found.kept
        table.add_row(campaign.id, str(found.shard), "both" if agree else "events", *_figures(found.told))
        if not agree:
            table.add_row("", "", "[red]store[/red]", *_figures(found.kept))
    console.print(table)
    for campaign, found in audits:
        place = f"{campaign.id}, shard {found.shard}"
        if found.broken:
            console.print(f"[red]✗[/red] {place}: {escape(found.broken)}", highlight=False)
        for one in found.mismatches:
            said = _said(one.told, one.told_amount) or "no coupon"
            kept = _said(one.recorded, one.recorded_amount) or "no record"
            console.print(f"[red]✗[/red] {place}, coupon {one.sequence}: events {said}, record {kept}", highlight=False)
        if found.differing > len(found.mismatches):
            console.print(f"[red]✗[/red] {place}: {found.differing:,} records differ in all", highlight=False)
    sound = sum(found.is_sound for _, found in audits)
    events = sum(found.events for _, found in audits)
    console.print(f"{sound:,} of {len(audits):,} shards agree with {events:,} events", highlight=False)


def _said(status: str | None, amount: int | None) -> str | None:
    return status if status is None or amount is None else f"{status} with {amount:,}"


def _figures(counters: Counters) -> list[str]:
    return [f"{getattr(counters, name):,}" for name in FIGURES]
