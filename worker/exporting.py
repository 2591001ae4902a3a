"""Why: events are written to day files before the store forgets them, by whichever worker has the time."""

import time
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from service.domain.campaign import Campaign
from service.store.catalogue import Catalogue
from service.store.day_files import DayFilesBroken
from service.store.export import Exporter
from service.store.webhooks import WebhookStore

log = structlog.get_logger("tidegate.worker")


class Exporting:
    """Exports a campaign's events and trims what is exported, delivered and old enough.

    `until_s` is as in Tidying. Raises StoreError when the store does not answer, DayFilesBroken or OSError when the
    files cannot be gone on with; nothing is trimmed that is not on disk.
    """

    def __init__(self, catalogue: Catalogue, exporter: Exporter, webhooks: WebhookStore) -> None:
        self._catalogue = catalogue
        self._exporter = exporter
        self._webhooks = webhooks

    async def export(self, campaign_id: str, until_s: float) -> None:
        """Export every shard's events, unless another process is exporting the campaign."""
        campaign = await self._catalogue.load(campaign_id)
        if campaign is None:
            return
        try:
            with self._exporter.day_files(campaign, 0).locked() as mine:
                if mine:
                    await self._export(campaign, until_s)
        except (DayFilesBroken, OSError) as error:
            log.error("events cannot be exported", campaign=campaign_id, reason=str(error))
            raise

    async def _export(self, campaign: Campaign, until_s: float) -> None:
        for shard in range(campaign.shards):
            if not await _work_off(partial(self._exporter.export, campaign, shard), until_s):
                return
            delivered = await self._webhooks.delivered(campaign.id, shard)
            if not await _work_off(partial(self._exporter.trim, campaign, shard, delivered), until_s):
                return


async def _work_off(chunk: Callable[[], Awaitable[bool]], until_s: float) -> bool:
    while await chunk():
        if time.monotonic() >= until_s:
            return False
    return True
