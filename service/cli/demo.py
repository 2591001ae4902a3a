"""Why: a newcomer's first coupon should come from a real campaign: that of the Spring Festival of 2026.

3 billion yuan in coupons of 25 yuan, at most 21 for each user, valid to the end of the 17th day after the launch. While
coupons were out, their validity was extended by five days; the banner shows how.
"""

from collections.abc import Mapping
from datetime import datetime, time, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from service.cli.failures import CommandError
from service.cli.remote import Remote

ID: Final = "spring-festival"
ZONE: Final = "Asia/Shanghai"
VALID_DAYS: Final = 17
EXTENDED_BY: Final = timedelta(days=5)


def demo_campaign(launch: datetime) -> dict[str, Any]:
    """Return the campaign of 2026 as if it were launched at `launch`."""
    last_day = launch.astimezone(ZoneInfo(ZONE)).date() + timedelta(days=VALID_DAYS)
    return {
        "id": ID,
        "name": "Spring Festival free orders",
        "benefit": {"kind": "amount", "amount": 2500, "currency": "CNY"},
        "max_coupons": 120_000_000,
        "max_coupons_per_user": 21,
        "budget": {"amount": 300_000_000_000, "currency": "CNY"},
        "validity": {
            "expires_at": datetime.combine(last_day, time(23, 59, 59), ZoneInfo(ZONE)).isoformat(),
            "timezone": ZONE,
        },
        "issue_rate": {"per_second": 20_000, "burst": 40_000},
        "code_prefix": "QWEN",
    }


def open_demo(service: Remote, now: datetime) -> Mapping[str, Any]:
    """Create and start the campaign unless it is there already, and return it. Raises CommandError."""
    try:
        service.post("/v1/campaigns", demo_campaign(now))
    except CommandError as error:
        if error.problem.get("reason") != "campaign_exists":
            raise
    campaign = service.get(f"/v1/campaigns/{ID}")
    if campaign["status"] == "draft":
        campaign = service.post(f"/v1/campaigns/{ID}/start", {"reason": "tidegate up"})
    return campaign


def extended_expiry(campaign: Mapping[str, Any]) -> str:
    """Return the expiry that the banner proposes: five days after the campaign's own."""
    return (datetime.fromisoformat(campaign["validity"]["expires_at"]) + EXTENDED_BY).isoformat()
