"""What operators look at and do: the breaker, metrics and health."""

from datetime import UTC, datetime

from fastapi import APIRouter, Response

from service.api import live_figures
from service.api.actor import Actor
from service.api.door import PartsOf
from service.api.parts import Parts
from service.api.problems import Refused, not_found, problem, retry_after
from service.api.wire import Breaker, BreakerOverride, OverrideInForce
from service.store.breaker_state import WHOLE, TooManyBreakers
from service.store.scripts import StoreError

router = APIRouter(tags=["operations"])


@router.put("/v1/breaker")
async def override_breaker(override: BreakerOverride, parts: PartsOf, actor: Actor) -> Breaker:
    """Force the breaker open, closed or into shadow, or leave it to itself again. Redemption goes on in any case."""
    return await _override(parts, WHOLE, override, actor)


@router.put("/v1/campaigns/{campaign_id}/breaker")
async def override_campaign_breaker(
    campaign_id: str, override: BreakerOverride, parts: PartsOf, actor: Actor
) -> Breaker:
    """Force one campaign's breaker, or leave it to itself again. What was said of all campaigns holds beside it."""
    if await parts.catalogue.find(campaign_id) is None:
        raise Refused(not_found())
    return await _override(parts, campaign_id, override, actor)


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


async def _override(parts: Parts, campaign_id: str, override: BreakerOverride, actor: str) -> Breaker:
    try:
        await parts.breaker.override(override.mode, actor, override.reason, override.ttl_s, campaign_id)
    except TooManyBreakers as error:
        raise Refused(problem("too_many_breakers", f"{error}.")) from None
    status = parts.breaker.breaker_status(campaign_id)
    word = status.override
    return Breaker(
        mode=status.mode,
        issuance=status.issuance.value,
        reason=status.reason,
        since=_moment(status.since_ms),
        epoch=status.epoch,
        override=OverrideInForce(
            actor=word.actor,
            reason=word.reason,
            expires_at=None if word.expires_at_ms is None else _moment(word.expires_at_ms),
        ),
    )


def _moment(instant_ms: int) -> datetime:
    return datetime.fromtimestamp(instant_ms / 1000, UTC)
