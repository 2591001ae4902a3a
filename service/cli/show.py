"""Why: answers of the service are shown as a person reads them, or as the service gave them for a program."""

import json
import sys
from collections.abc import Mapping
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

DIGITS: Final = {"BHD": 3, "CLP": 0, "IQD": 3, "JOD": 3, "JPY": 0, "KRW": 0, "KWD": 3, "OMR": 3, "TND": 3, "VND": 0}
"""Digits after the point in a currency's minor units, ISO 4217, where they are not two."""
STATUS_COLOURS: Final = {
    "running": "green",
    "issuing": "green",
    "completed": "green",
    "paused": "yellow",
    "recovering": "yellow",
    "stopped": "red",
    "failed": "red",
    "undoing": "yellow",
    "undone": "yellow",
}


def money(value: Mapping[str, Any]) -> str:
    """Return an amount in minor units as people write it: CNY 25.00."""
    digits = DIGITS.get(value["currency"], 2)
    sign, amount = "-" if value["amount"] < 0 else "", abs(value["amount"])
    whole, part = divmod(amount, 10**digits)
    return f"{value['currency']} {sign}{whole:,}" + (f".{part:0{digits}d}" if digits else "")


def benefit(value: Mapping[str, Any]) -> str:
    """Return a campaign's benefit as people say it: 20 %, CNY 25.00 at most."""
    currency = value["currency"]
    match value["kind"]:
        case "percent":
            return f"{value['percent']} %, {money({'currency': currency, 'amount': value['max_amount']})} at most"
        case "red_envelope":
            return f"{money({'currency': currency, 'amount': value['pot']})} in {value['shares']:,} shares"
        case _:
            return money(value)


def campaign(found: Mapping[str, Any], as_json: bool) -> None:
    """Show one campaign."""
    if as_json:
        return _json(found)
    facts = Table.grid(padding=(0, 2))
    for name, value in _facts(found):
        facts.add_row(f"[dim]{name}[/dim]", value)
    return Console().print(facts)


def campaigns(found: Mapping[str, Any], as_json: bool) -> None:
    """Show campaigns, one a line."""
    if as_json:
        return _json(found)
    table = Table("Campaign", "Status", "Benefit", box=None, header_style="dim", pad_edge=False)
    for name in ("Issued", "Redeemed", "Remaining", "Budget left"):
        table.add_column(name, justify="right")
    for one in found["campaigns"]:
        counters = one["counters"]
        table.add_row(
            one["id"],
            _status(one["status"]),
            benefit(one["benefit"]),
            f"{counters['issued']:,}",
            f"{counters['redeemed']:,}",
            f"{counters['remaining']:,}",
            _budget_left(one),
        )
    return Console().print(table)


def extension(found: Mapping[str, Any], as_json: bool) -> None:
    """Show an extension."""
    if as_json:
        return _json(found)
    undo, to = found["undo"], found["expires_at"] or f"{found['added_ms']:,} ms later"
    facts = [f"{found['done']:,} of {found['total']:,} coupons seen", f"{found['changed']:,} changed"]
    if found["revived"] or found["refused"]:
        facts.append(f"{found['revived']:,} of them brought back, {found['refused']:,} for want of budget not yet")
    if found["liability"] is not None:
        facts.append(f"worth {money(found['liability'])}, budget needed again {money(found['budget_needed'])}")
    if undo is not None:
        facts.append(f"undone: {undo['done']:,} of {undo['total']:,} seen, {undo['shortened']:,} expire sooner")
    return Console().print(
        f"Extension {found['id']} to {to}: {_status(found['status'])}, {', '.join(facts)}", highlight=False
    )


def outage(found: Mapping[str, Any], as_json: bool) -> None:
    """Show an outage."""
    if as_json:
        return _json(found)
    return Console().print(f"Outage {found['number']}: {found['from']} to {found['to']}", highlight=False)


def jobs(found: Mapping[str, Any], as_json: bool) -> None:
    """Show long jobs, one a line."""
    if as_json:
        return _json(found)
    table = Table("Job", "Status", box=None, header_style="dim", pad_edge=False)
    for name in ("Done", "Total"):
        table.add_column(name, justify="right")
    table.add_column("Error")
    for one in found["jobs"]:
        cells = (one["id"], _status(one["status"]), f"{one['done']:,}", f"{one['total']:,}", one["error"] or "")
        table.add_row(*cells[:-1], escape(cells[-1]))
    return Console().print(table)


def status(found: Mapping[str, Any], as_json: bool) -> None:
    """Show whether coupons are being issued."""
    if as_json:
        return _json(found)
    why = " · ".join(escape(str(found[name])) for name in ("reason", "message") if found.get(name))
    return Console().print(
        f"{_status(found['issuance'])} since {found['since']}" + (f" · {why}" if why else ""), highlight=False
    )


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    budget, counters = found.get("budget"), found["counters"]
    rate = found["issue_rate"]
    return [
        ("Campaign", f"[bold]{found['id']}[/bold]  {escape(found['name'])}"),
        ("Status", f"{_status(found['status'])}, version {found['version']}"),
        ("Benefit", benefit(found["benefit"])),
        ("Coupons", f"{found['max_coupons']:,}, {found['max_coupons_per_user']:,} for each user"),
        ("Budget", money(budget) if budget else "no limit"),
        *_validity(found["validity"]),
        ("Rate", f"{rate['per_second']:,} a second, bursts of {rate['burst']:,}"),
        ("", ""),
        *(
            (name.replace("_", " ").capitalize(), f"{value:,}")
            for name, value in counters.items()
            if isinstance(value, int) and name not in ("budget_remaining", "liability")
        ),
        ("Liability", money({"currency": found["benefit"]["currency"], "amount": counters["liability"]})),
        ("Budget left", _budget_left(found)),
    ]


def _validity(rule: Mapping[str, Any]) -> list[tuple[str, str]]:
    window = ("timezone", "starts_at", "expires_at", "wait", "duration")
    hours = (f"{', '.join(entry['days'])} {entry['from']}-{entry['to']}" for entry in rule.get("hours", ()))
    waves = rule.get("waves")
    facts = [
        ("Valid", ", ".join(f"{name} {rule[name]}" for name in window if rule.get(name))),
        ("Open", "; ".join(hours)),
        ("Closed on", ", ".join(rule.get("excluded_dates", ()))),
        ("Open also on", ", ".join(rule.get("extra_dates", ()))),
        ("Waves", f"{waves['count']}, one every {waves['every']}" if waves else ""),
        ("Lost time", "given back" if rule.get("stop_the_clock") else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _budget_left(found: Mapping[str, Any]) -> str:
    left = found["counters"].get("budget_remaining")
    return "no limit" if left is None or found["budget"] is None else money({**found["budget"], "amount": left})


def _status(name: str) -> str:
    return f"[{STATUS_COLOURS.get(name, 'dim')}]● {name}[/]"


def _json(found: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
