"""Why: what jobs do, apart from how they are called, so that a test can do it on its own store and by its own clock.

The work goes on in chunks, each one script call that keeps its own checkpoint, until nothing is left or the time is
up. After a spell of chunks the store gets a rest four times as long, so that few redemptions wait for a chunk at all.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

import structlog

from service.domain.campaign import Campaign, scheduled_status
from service.store.catalogue import Catalogue, Stale
from service.store.extensions import ExtensionStore

SPELL_S: Final = 0.01
"""How long chunks follow on each other: a store that is woken for every single one does each with cold caches."""
RESTS_PER_SPELL: Final = 4
LONGEST_REST_S: Final = 0.1

log = structlog.get_logger("tidegate.worker")


class Tidying:
    """What there is to do for a campaign, over the stores it is given.

    `until_s` is the instant of `clock`, in seconds, after which no new chunk is begun; one chunk is always done. `rest`
    leaves the store alone for so many seconds. Methods raise StoreError when the store does not answer; what was done
    until then stays done.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        extensions: ExtensionStore,
        clock: Callable[[], float] = time.monotonic,
        rest: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._catalogue = catalogue
        self._extensions = extensions
        self._clock = clock
        self._rest = rest

    async def write_through(self, campaign_id: str, number: int, until_s: float) -> None:
        """Write extensions up to that one into the coupons, and what was undone, in the order in which it was done."""
        campaign = await self._catalogue.load(campaign_id)
        if campaign is not None:
            await self._extensions.note_failure(campaign, number, "")
            await self._write_up_to(campaign, number, until_s)

    async def write_undo_through(self, campaign_id: str, number: int, until_s: float) -> None:
        """Write the undoing of that extension into the coupons, after all that was made before it."""
        campaign = await self._catalogue.load(campaign_id)
        progress = None if campaign is None else await self._extensions.progress(campaign, number)
        if campaign is not None and progress is not None and progress.undo is not None:
            await self._extensions.note_failure(campaign, number, "")
            await self._write_up_to(campaign, progress.undo.made, until_s)

    async def _write_up_to(self, campaign: Campaign, number: int, until_s: float) -> None:
        undone: dict[int, list[int]] = {}
        for each in range(1, number + 1):
            progress = await self._extensions.progress(campaign, each)
            if progress is None:
                continue
            if not progress.is_written:
                if not await self._write(self._extensions.write_through, campaign, each, until_s):
                    return
                log.info("extension written through", campaign=campaign.id, number=each)
            if progress.undo is not None and not progress.undo_is_written:
                undone.setdefault(progress.undo.made, []).append(each)
            # What was undone before the next extension was made is written before it.
            for earlier in undone.get(each, []):
                if not await self._write(self._extensions.write_undo_through, campaign, earlier, until_s):
                    return
                log.info("undoing written through", campaign=campaign.id, number=earlier)

    async def _write(
        self, chunk: Callable[[Campaign, int, int], Awaitable[bool]], campaign: Campaign, number: int, until_s: float
    ) -> bool:
        for shard in range(campaign.shards):
            if not await self._work_off(partial(chunk, campaign, shard, number), until_s):
                return False
        return True

    async def note_failure(self, campaign_id: str, number: int, failure: str) -> None:
        """Show in the extension why it is not written through, or with nothing that the work goes on."""
        campaign = await self._catalogue.load(campaign_id)
        if campaign is not None:
            await self._extensions.note_failure(campaign, number, failure)

    async def preview(self, campaign_id: str, number: int, until_s: float) -> None:
        """Count what an extension would change."""
        campaign = await self._catalogue.load(campaign_id)
        if campaign is not None:
            await self._work_off(partial(self._extensions.previews.count, campaign, number), until_s)

    async def tend(self, campaign_id: str, until_s: float) -> None:
        """Bring the shards in line, open or close on time, give lost time back, free reservations, mark expiry."""
        campaign = await self._catalogue.load(campaign_id)
        if campaign is None:
            return
        await self._catalogue.align(campaign)
        await self._open_or_close(campaign)
        for extension in await self._extensions.give_back_lost_time(campaign):
            log.info("lost time given back", campaign=campaign_id, number=extension.number)
        # A sweep may take all the time there is: no reservation waits for one.
        for chunk in (self._extensions.lapse, self._extensions.expire):
            for shard in range(campaign.shards):
                if not await self._work_off(partial(chunk, campaign, shard), until_s):
                    return

    async def _open_or_close(self, campaign: Campaign) -> None:
        now_ms = await self._catalogue.now_ms()
        status = scheduled_status(campaign, now_ms)
        if status is campaign.status:
            return
        # Somebody else changed the campaign meanwhile: the schedule looks at it again.
        with suppress(Stale):
            changed = replace(campaign, status=status, status_reason="issue window", status_since_ms=now_ms)
            await self._catalogue.update(campaign, replace(changed, version=campaign.version + 1))
            log.info("campaign changed by its issue window", campaign=campaign.id, status=status)

    async def _work_off(self, chunk: Callable[[], Awaitable[bool]], until_s: float) -> bool:
        """Do chunk after chunk while there are any and the time is not up; whether all is done."""
        while True:
            began_s = ended_s = self._clock()
            while ended_s - began_s < SPELL_S:
                if not await chunk():
                    return True
                ended_s = self._clock()
                if ended_s >= until_s:
                    return False
            await self._rest(min(LONGEST_REST_S, RESTS_PER_SPELL * (ended_s - began_s)))
