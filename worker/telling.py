"""Why: one webhook is told every shard's events in order: the next one only after the receiver acknowledged the last.

How far it was told stands in the store, so whoever takes over after a crash repeats one message at the most, under the
same id.
"""

import json
import secrets
import time
from collections.abc import Iterator
from typing import Final

import structlog

from service.domain.codes import CodeBook
from service.domain.events import Event, moment, parts_of
from service.domain.webhooks import Webhook, WebhookStatus, signed_headers
from service.store.catalogue import KnownCampaign
from service.store.events import CursorTooOld, EventStore
from service.store.webhooks import WebhookStore
from worker.postman import CALL_TIMEOUT_S, NotDelivered, Postman

LEASE_MS: Final = int(CALL_TIMEOUT_S * 1500)
"""Longer than a delivery can take, so that two processes never tell a webhook its events at the same time."""
EVENTS_PER_TURN: Final = 100
"""How many events of one shard are told before the next shard has its turn."""

log = structlog.get_logger("tidegate.courier")


class Telling:
    """Tells webhooks of events. Its methods raise StoreError when the store does not answer.

    A webhook whose deliveries have failed for `disable_after_ms` is disabled.
    """

    def __init__(self, webhooks: WebhookStore, events: EventStore, postman: Postman, disable_after_ms: int) -> None:
        self._webhooks = webhooks
        self._events = events
        self._postman = postman
        self._disable_after_ms = disable_after_ms
        self._holder = secrets.token_hex(8)

    async def tell(self, webhook: Webhook, known: KnownCampaign, now_ms: int) -> bool:
        """Tell the webhook the campaign's next events; False when it can be told no more at the moment."""
        for shard in range(known.campaign.shards):
            failed = await self._tell_shard(webhook, known.campaign.id, shard, known.codes)
            if failed is not None:
                await self._note(webhook, failed, now_ms)
                return False
        return True

    async def _tell_shard(self, webhook: Webhook, campaign_id: str, shard: int, codes: CodeBook) -> NotDelivered | None:
        told = await self._webhooks.told(webhook, campaign_id, shard)
        try:
            events = await self._events.read_shard(campaign_id, shard, told, EVENTS_PER_TURN)
        except CursorTooOld:
            return NotDelivered("events were trimmed before they could be told", is_final=True)
        for event in events:
            is_wanted = event.type in webhook.types
            if is_wanted:
                for message_id, body in messages(campaign_id, event, codes):
                    if not await self._webhooks.lease(webhook, self._holder, LEASE_MS):
                        return None
                    failed = await self._deliver(webhook, message_id, body)
                    if failed is not None:
                        return failed
            elif event.id != events[-1].id:
                # What nobody wants to know is passed over together with what follows.
                continue
            if not await self._webhooks.advance(webhook, campaign_id, shard, told, event.id, delivered=is_wanted):
                return None
            told = event.id
        return None

    async def _deliver(self, webhook: Webhook, message_id: str, body: bytes) -> NotDelivered | None:
        headers = signed_headers(webhook.secret, message_id, int(time.time()), body)
        return await self._postman.deliver(webhook.url, headers, body)

    async def _note(self, webhook: Webhook, failed: NotDelivered, now_ms: int) -> None:
        disable_after_ms = 0 if failed.is_final else self._disable_after_ms
        health = (await self._webhooks.health(webhook)).after_failure(failed.reason, now_ms, disable_after_ms)
        await self._webhooks.note_failure(webhook, health)
        told = {"webhook": webhook.id, "reason": health.failure, "failures": health.failures}
        if health.status is WebhookStatus.DISABLED:
            log.error("webhook disabled", **told)
        else:
            log.warning("webhook not told", **told)


def messages(campaign_id: str, event: Event, codes: CodeBook) -> Iterator[tuple[str, bytes]]:
    """The event's messages, each with an id that is the same however often it is sent."""
    for part, data in enumerate(parts_of(event, codes, campaign_id)):
        message_id = f"msg_{campaign_id}_{event.shard}_{event.id}" + (f"_{part}" if part else "")
        body = {"type": event.type, "timestamp": moment(event.id.at_ms), "campaign_id": campaign_id, "data": data}
        yield message_id, json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
