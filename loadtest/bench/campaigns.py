"""Why: every system issues the same coupons, of a campaign that refuses nobody unless a limit is what is measured."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from redis import Redis

from loadtest import incident
from service.cli.remote import Remote

VALID_FOR: Final = timedelta(days=22)
NO_LIMIT: Final = {"per_second": 1_000_000, "burst": 100_000_000}


def open_campaign(service: Remote, campaign_id: str, **limits: Any) -> None:
    """Create and start a campaign of Tidegate's, by default as large as the incident's. Raises CommandError."""
    campaign = {
        "id": campaign_id,
        "name": campaign_id,
        "benefit": {"kind": "amount", "amount": incident.COUPON_FEN, "currency": incident.CURRENCY},
        "max_coupons": incident.ALL_ORDERS,
        "max_coupons_per_user": 1,
        "budget": {"amount": incident.BUDGET_FEN, "currency": incident.CURRENCY},
        "validity": {"timezone": incident.ZONE.key, "expires_at": _expires_at().isoformat(timespec="seconds")},
        "issue_rate": NO_LIMIT,
        "code_prefix": "B" + secrets.token_hex(3).upper(),
    }
    service.post("/v1/campaigns", campaign | limits)
    service.post(f"/v1/campaigns/{campaign_id}/start", {"reason": "bench"})


def open_baseline_campaign(store: Redis, campaign_id: str, **limits: Any) -> None:
    """Write the same campaign into a baseline's store."""
    expires_at_ms = round(_expires_at().timestamp() * 1000)
    offset = datetime.now(incident.ZONE).utcoffset() or timedelta()
    campaign: dict[Any, Any] = {
        "status": "running",
        "starts_at": 0,
        "ends_at": expires_at_ms,
        "expires_at": expires_at_ms,
        "max_coupons": incident.ALL_ORDERS,
        "max_coupons_per_user": 1,
        "budget": incident.BUDGET_FEN,
        "amount": incident.COUPON_FEN,
        "currency": incident.CURRENCY,
        "min_order_amount": 0,
        "per_second_milli": NO_LIMIT["per_second"] * 1000,
        "burst": NO_LIMIT["burst"],
        "tokens": NO_LIMIT["burst"] * 10**6,
        "tokens_at": 0,
        "issued": 0,
        "committed": 0,
        "code_prefix": "BENCH",
        "timezone": incident.ZONE.key,
        "utc_offset": f"+{offset // timedelta(hours=1):02}:00",
        "utc_offset_s": round(offset.total_seconds()),
    }
    store.hset(f"campaign:{{{campaign_id}}}", mapping=campaign | limits)


def _expires_at() -> datetime:
    return datetime.now(UTC) + VALID_FOR
