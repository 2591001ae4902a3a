"""Why: webhooks are told of events beside the jobs, in a thread of the worker, so that a slow receiver delays no job.

Each webhook has its own task, so that it delays no other webhook either.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from threading import Thread
from typing import Final, NoReturn

import structlog

from service.domain.campaign import Campaign
from service.domain.webhooks import Webhook, WebhookStatus
from service.settings import Settings, SettingsError
from service.store.catalogue import Catalogue
from service.store.client import connect
from service.store.events import EventStore
from service.store.scripts import Scripts, StoreError
from service.store.webhooks import WebhookStore
from worker.postman import Postman
from worker.start import STORE_TIMEOUT_MS
from worker.telling import Telling

LOOK_EVERY_S: Final = 0.5
LONGEST_PAUSE_S: Final = 15.0
SHARDS_PER_TURN: Final = 256
"""How many shards one webhook's turn looks at; the next turn goes on with the campaigns behind them."""

log = structlog.get_logger("tidegate.courier")


class Courier:
    """Sees who is due and has him told. Its methods raise StoreError when the store does not answer."""

    def __init__(self, webhooks: WebhookStore, catalogue: Catalogue, telling: Telling) -> None:
        self._webhooks = webhooks
        self._catalogue = catalogue
        self._telling = telling
        self._turns: dict[str, asyncio.Task[None]] = {}
        self._rounds: dict[str, deque[Campaign]] = {}

    async def begin_turns(self) -> None:
        """Begin a turn of every webhook that is due and has none."""
        webhooks = await self._webhooks.list()
        self._turns = {name: turn for name, turn in self._turns.items() if not turn.done()}
        self._rounds = {webhook.id: self._rounds.get(webhook.id, deque()) for webhook, _ in webhooks}
        if not webhooks:
            return
        now_ms = await self._catalogue.now_ms()
        for webhook, health in webhooks:
            is_due = health.status is WebhookStatus.ACTIVE and health.retry_at_ms <= now_ms
            if is_due and webhook.id not in self._turns:
                turn = self._take_turn(webhook, await self._next(webhook), now_ms)
                self._turns[webhook.id] = asyncio.create_task(turn)

    async def end_turns(self) -> None:
        """Return when all turns that were begun are over."""
        await asyncio.gather(*self._turns.values())

    async def _take_turn(self, webhook: Webhook, campaigns: list[Campaign], now_ms: int) -> None:
        try:
            for campaign in campaigns:
                known = await self._catalogue.find(campaign.id)
                if known is not None and not await self._telling.tell(webhook, known, now_ms):
                    return
        except StoreError as error:
            log.warning("the store does not answer", reason=str(error), webhook=webhook.id)
        except Exception:
            log.exception("a webhook cannot be told", webhook=webhook.id)

    async def _next(self, webhook: Webhook) -> list[Campaign]:
        """The campaigns of the webhook's next turn; after the last one its round begins anew."""
        left = self._rounds[webhook.id]
        if not left:
            campaigns = await self._catalogue.list()
            left.extend(campaign for campaign in campaigns if webhook.campaign_id in (None, campaign.id))
        chosen: list[Campaign] = []
        while left and sum(campaign.shards for campaign in chosen) < SHARDS_PER_TURN:
            chosen.append(left.popleft())
        return chosen


@asynccontextmanager
async def courier(settings: Settings) -> AsyncIterator[Courier]:
    """A courier over connections of his own."""
    client = connect(settings.effective_store_url, STORE_TIMEOUT_MS)
    scripts, postman = Scripts(client), Postman(settings.webhooks.allow_private)
    webhooks, code_key = WebhookStore(client, scripts), settings.read_code_key()
    telling = Telling(webhooks, EventStore(client), postman, settings.webhooks.disable_after_s * 1000)
    try:
        yield Courier(webhooks, Catalogue(client, scripts, code_key), telling)
    finally:
        await postman.close()
        await client.aclose()


def start_courier(settings: Settings) -> None:
    """Have webhooks told of events for as long as the process lives. What is cut short then is told again."""
    try:
        settings.read_code_key()
    except SettingsError as error:
        log.warning("webhooks are not told", reason=str(error))
        return
    Thread(target=lambda: asyncio.run(_keep_going(settings)), name="courier", daemon=True).start()


async def _keep_going(settings: Settings) -> NoReturn:
    pause_s = LOOK_EVERY_S
    async with courier(settings) as at_work:
        while True:
            try:
                await at_work.begin_turns()
                pause_s = LOOK_EVERY_S
            except StoreError as error:
                if pause_s == LOOK_EVERY_S:
                    log.warning("the store does not answer", reason=str(error))
                pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
            except Exception:
                log.exception("webhooks cannot be told")
                pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
            await asyncio.sleep(pause_s)
