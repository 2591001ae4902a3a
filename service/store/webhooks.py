"""Webhooks: who is to be told what, how far he has been told it, and how the last deliveries went."""

from collections.abc import Iterable
from typing import Final

from pydantic import TypeAdapter
from redis.asyncio import Redis

from service.domain.events import EventId
from service.domain.webhooks import MAX_WEBHOOKS, Health, Webhook, WebhookStatus
from service.store import keys
from service.store.scripts import Scripts, store_errors

_DEFINITION: Final = TypeAdapter(Webhook)
_HEALTH: Final = TypeAdapter(Health)


class WebhookStore:
    """Keeps webhooks. Every method raises StoreError when the store does not answer."""

    def __init__(self, client: Redis, scripts: Scripts) -> None:
        self._client = client
        self._scripts = scripts

    async def register(self, webhook: Webhook) -> bool:
        """Keep the webhook; it is told what happens from now on. False when there are as many as there may be."""
        definition = _DEFINITION.dump_json(webhook)
        answer = await self._scripts.run("register_webhook", [keys.WEBHOOKS], webhook.id, definition, MAX_WEBHOOKS)
        return bool(answer == b"registered")

    async def list(self) -> list[tuple[Webhook, Health]]:
        """All webhooks with their health, the oldest first."""
        with store_errors():
            definitions = await self._client.hvals(keys.WEBHOOKS)
            if not definitions:
                return []
            # Text comes only from a client that is told to decode, and ours is not.
            health: dict[bytes, bytes] = await self._client.hgetall(keys.WEBHOOKS_HEALTH)  # type: ignore[assignment]
        webhooks = sorted(map(_DEFINITION.validate_json, definitions), key=lambda each: (each.created_at_ms, each.id))
        return [(webhook, _health(health.get(webhook.id.encode()))) for webhook in webhooks]

    async def health(self, webhook: Webhook) -> Health:
        """How the webhook's last deliveries went."""
        with store_errors():
            stored: bytes | None = await self._client.hget(keys.WEBHOOKS_HEALTH, webhook.id)  # type: ignore[assignment]
        return _health(stored)

    async def delete(self, webhook_id: str) -> bool:
        """Forget the webhook; whether there was one. A delivery that is on its way may still arrive."""
        with store_errors():
            deleted = await self._client.hdel(keys.WEBHOOKS, webhook_id)
            await self._client.hdel(keys.WEBHOOKS_HEALTH, webhook_id)
            for key in (keys.webhook_cursors_key(webhook_id), keys.webhook_lease_key(webhook_id)):
                await self._client.delete(key)
        return bool(deleted)

    async def lease(self, webhook: Webhook, holder: str, for_ms: int) -> bool:
        """Take or renew the right to tell the webhook its events; False while another process has it."""
        lease_keys = [keys.WEBHOOKS, keys.webhook_lease_key(webhook.id)]
        return bool(await self._scripts.run("lease_webhook", lease_keys, webhook.id, holder, for_ms))

    async def told(self, webhook: Webhook, campaign_id: str, shard: int) -> EventId:
        """The last event of the shard that the webhook was told, or need not be told."""
        with store_errors():
            cursor = await self._client.hget(keys.webhook_cursors_key(webhook.id), _place(campaign_id, shard))
        return _registered(webhook) if cursor is None else _event_id(cursor)

    async def advance(
        self, webhook: Webhook, campaign_id: str, shard: int, before: EventId, now: EventId, *, delivered: bool
    ) -> bool:
        """Note that the webhook was told the events up to `now`, if the last was `before`.

        It is well if anything was `delivered`: what it need not be told says nothing about it.
        """
        advance_keys = [keys.WEBHOOKS, keys.WEBHOOKS_HEALTH, keys.webhook_cursors_key(webhook.id)]
        known = "" if before == _registered(webhook) else str(before)
        place = _place(campaign_id, shard)
        answer = await self._scripts.run(
            "advance_webhook", advance_keys, webhook.id, place, known, str(now), int(delivered)
        )
        return bool(answer)

    async def note_failure(self, webhook: Webhook, health: Health) -> None:
        """Note that the webhook could not be told."""
        failure_keys = [keys.WEBHOOKS, keys.WEBHOOKS_HEALTH]
        await self._scripts.run("note_webhook_failure", failure_keys, webhook.id, _HEALTH.dump_json(health))

    async def delivered(self, campaign_id: str, shard: int) -> EventId | None:
        """The last event of the shard that every active webhook was told; None where nobody wants to be told."""
        waiting = [webhook for webhook in _active(await self.list()) if webhook.campaign_id in (None, campaign_id)]
        return min([await self.told(webhook, campaign_id, shard) for webhook in waiting], default=None)


def _active(webhooks: Iterable[tuple[Webhook, Health]]) -> Iterable[Webhook]:
    return (webhook for webhook, health in webhooks if health.status is WebhookStatus.ACTIVE)


def _registered(webhook: Webhook) -> EventId:
    return EventId(webhook.created_at_ms, 0)


def _health(stored: bytes | None) -> Health:
    return Health() if stored is None else _HEALTH.validate_json(stored)


def _event_id(stored: bytes | str) -> EventId:
    return EventId.parse(stored if isinstance(stored, str) else stored.decode())


def _place(campaign_id: str, shard: int) -> str:
    return f"{campaign_id}:{shard}"
