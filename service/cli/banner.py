"""Why: the first screen a newcomer sees says where everything is and what to try next, ready to copy."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from service.cli.demo import extended_expiry


def show_banner(
    console: Console,
    url: str,
    redeem_url: str | None,
    data: Path | str,
    demo: Mapping[str, Any] | None,
    needs_key: bool,
) -> None:
    """Print where the service is and, when there is a demo campaign, three commands that work as they stand."""
    lines = ["", "  [bold blue]≈≈≈[/] [bold]Tidegate is open[/]", ""]
    places = [("API", url), ("Docs", f"{url}/docs"), ("Data", str(data)), ("Stop", "Ctrl-C")]
    if redeem_url is not None:
        places.insert(1, ("Redeem", redeem_url))
    for name, value in places:
        lines.append(f"  [dim]{name:<8}[/]{escape(value)}")
    for title, command in _commands(url, demo, needs_key) if demo else ():
        lines += ["", f"  [dim]# {title}[/]", f"  [green]{escape(command)}[/]"]
    # Nothing is wrapped, so that each command can be copied in one piece.
    console.print("\n".join([*lines, ""]), soft_wrap=True, highlight=False)


def _commands(url: str, campaign: Mapping[str, Any], needs_key: bool) -> tuple[tuple[str, str], ...]:
    curl = "curl -s -w '\\n'" + (' -H "Authorization: Bearer $TIDEGATE_API_KEY"' if needs_key else "")
    send = f"{curl} -H 'Content-Type: application/json'"
    of_campaign = f"{url}/v1/campaigns/{campaign['id']}"
    code = f"{curl} {of_campaign}/users/ada/coupons | grep -o '{campaign['code_prefix']}-[0-9A-Z-]*' | head -n 1"
    expires_at = extended_expiry(campaign)
    day = datetime.fromisoformat(expires_at).strftime("%-d %B")
    return (
        (
            "Issue a coupon (again: the same coupon; another key: another coupon)",
            f"""{send} -H 'Idempotency-Key: first-cup' -d '{{"user_id": "ada"}}' {of_campaign}/coupons""",
        ),
        (
            "Redeem it",
            f"""{send} -d '{{"merchant_id": "tea-house", "order_id": "1"}}' """
            f'''"{url}/v1/coupons/$({code})/redemptions"''',
        ),
        (
            f"Extend every coupon to {day}",
            f"""{send} -d '{{"expires_at": "{expires_at}", "reason": "too many visitors"}}' {of_campaign}/extensions""",
        ),
    )
