"""What operators look at and do: the breaker, metrics and health."""

from datetime import UTC, datetime

from fastapi import APIRouter, Response

from service.api import live_figures
from service.api.door import PartsOf
from service.api.problems import Refused, problem, retry_after
from service.api.wire import Breaker, BreakerOverride
from service.store.scripts import StoreError

router = APIRouter(tags=["operations"])


@router.put("/v1/breaker")
async def override_breaker(override: BreakerOverride, parts: PartsOf) -> Breaker:
    """Force the breaker open or closed, or leave it to itself again. Redemption goes on in any case."""
    await parts.breaker.override(override.mode, "operator", override.reason, override.ttl_s)
    status = parts.breaker.status()
    return Breaker(
        mode=status.mode,
        issuance=status.issuance.value,
        reason=status.reason,
        since=_moment(status.since_ms),
        epoch=status.epoch,
    )


@router.get("/metrics", response_class=Response)
async def read_metrics(parts: PartsOf) -> Response:
    """Prometheus' text format: what was counted here, and what the store says now."""
    text = parts.metrics.exposition() + await live_figures.exposition(parts)
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/livez")
async def is_alive() -> dict[str, str]:
    """Whether the process serves at all. It never asks the store."""
    return {"status": "alive"}


@router.get("/readyz")
async def is_ready(parts: PartsOf) -> dict[str, str]:
    """Whether requests should be sent here: the store answers, and this process is not the only sick one."""
    try:
        await parts.catalogue.now_ms()
    except StoreError:
        raise Refused(problem("not_ready", "The store does not answer.", retry_after(1))) from None
    if parts.breaker.sheds_alone:
        raise Refused(problem("not_ready", "This process is overloaded and sheds its own load.", retry_after(1)))
    return {"status": "ready"}


def _moment(instant_ms: int) -> datetime:
    return datetime.fromtimestamp(instant_ms / 1000, UTC)
