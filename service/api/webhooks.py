"""Webhooks over HTTP: who is to be told of events. The secret that signs them is shown once, at their creation."""

import secrets
from datetime import UTC, datetime

from fastapi import APIRouter, Response

from service.api.door import PartsOf
from service.api.problems import Refused, invalid, not_found, problem
from service.api.webhook_wire import NewWebhook, Webhook, WebhookList, WebhookRequest
from service.domain import webhooks as domain

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


@router.post("", status_code=201)
async def create_webhook(request: WebhookRequest, parts: PartsOf, response: Response) -> NewWebhook:
    """Have events told to a URL from now on, signed by the Standard Webhooks convention."""
    try:
        domain.check_url(request.url, parts.settings.webhooks.allow_private)
    except ValueError as error:
        raise Refused(invalid([{"loc": ["url"], "msg": str(error)}])) from None
    if request.campaign_id is not None and await parts.catalogue.load(request.campaign_id) is None:
        raise Refused(invalid([{"loc": ["campaign_id"], "msg": "names no campaign"}]))
    webhook = domain.Webhook(
        id=f"wh-{secrets.token_hex(12)}",
        url=request.url,
        types=tuple(sorted(set(request.types))),
        campaign_id=request.campaign_id,
        secret=domain.written_secret(secrets.token_bytes(domain.SECRET_BYTES)),
        created_at_ms=await parts.events.now_ms(),
    )
    if not await parts.webhooks.register(webhook):
        raise Refused(problem("too_many_webhooks", f"There are {domain.MAX_WEBHOOKS} webhooks; delete one first."))
    response.headers["location"] = f"/v1/webhooks/{webhook.id}"
    return NewWebhook(**_shown(webhook, domain.Health()).model_dump(), secret=webhook.secret)


@router.get("")
async def list_webhooks(parts: PartsOf) -> WebhookList:
    """All webhooks, the oldest first, and how their last deliveries went."""
    return WebhookList(webhooks=[_shown(webhook, health) for webhook, health in await parts.webhooks.list()])


@router.get("/{webhook_id}")
async def read_webhook(webhook_id: str, parts: PartsOf) -> Webhook:
    """One webhook, and how its last deliveries went."""
    for webhook, health in await parts.webhooks.list():
        if webhook.id == webhook_id:
            return _shown(webhook, health)
    raise Refused(not_found())


@router.delete("/{webhook_id}", status_code=204)
async def delete_webhook(webhook_id: str, parts: PartsOf) -> None:
    """Tell it no more. One delivery that is on its way may still arrive."""
    if not await parts.webhooks.delete(webhook_id):
        raise Refused(not_found())


def _shown(webhook: domain.Webhook, health: domain.Health) -> Webhook:
    waits = health.status is domain.WebhookStatus.ACTIVE and health.retry_at_ms
    return Webhook(
        id=webhook.id,
        url=webhook.url,
        types=list(webhook.types),
        campaign_id=webhook.campaign_id,
        created_at=_moment(webhook.created_at_ms),
        status=health.status,
        failures=health.failures,
        last_failure=health.failure or None,
        retry_at=_moment(health.retry_at_ms) if waits else None,
    )


def _moment(instant_ms: int) -> datetime:
    return datetime.fromtimestamp(instant_ms / 1000, UTC)
