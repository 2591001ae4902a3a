"""Chores: what there is to tidy in a campaign, so that a job is enqueued only where one is due."""

from dataclasses import dataclass

from service.domain.campaign import Campaign
from service.domain.extension import lost_time
from service.domain.validity import MAX_EXTENSIONS
from service.store import keys
from service.store.outages import OutageStore
from service.store.scripts import Scripts


@dataclass(frozen=True, slots=True)
class Chores:
    """What there is to tidy, by the store's clock.

    `unwritten_extension` is the last one, if it is not written through yet; earlier ones may not be either. `undoings`
    are the extensions whose undoing is not.
    `unmade_preview` is the number of one to be counted. `needs_tending` where a shard lags behind the definition,
    coupons have expired, reservations have lapsed or lost time is to be given back.
    """

    now_ms: int
    unwritten_extension: int | None
    undoings: tuple[int, ...]
    unmade_preview: int | None
    needs_tending: bool


class ChoreStore:
    """Looks for chores. Its method raises StoreError when the store does not answer."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._outages = OutageStore(scripts)

    async def find(self, campaign: Campaign) -> Chores:
        """What there is to tidy in the campaign: a look that costs little and writes nothing."""
        shards = [
            await self._scripts.run("read_chores", [keys.state_key(campaign.id, shard)])
            for shard in range(campaign.shards)
        ]
        last = max(made for _, _, made, *_ in shards)
        all_written = all(made == last and not unwritten for _, _, made, unwritten, *_ in shards)
        *_, outages_seen, unmade_preview, _ = shards[0]
        return Chores(
            now_ms=max(now_ms for now_ms, *_ in shards),
            unwritten_extension=None if all_written else last,
            undoings=tuple(sorted({number for *_, undoings in shards for number in undoings})),
            unmade_preview=unmade_preview or None,
            needs_tending=any(version < campaign.version or untidy for _, version, _, _, untidy, *_ in shards)
            or (last < MAX_EXTENSIONS and await self._has_lost_time(campaign, outages_seen)),
        )

    async def _has_lost_time(self, campaign: Campaign, outages_seen: int) -> bool:
        if not campaign.stop_the_clock:
            return False
        return any(outage.number > outages_seen for outage in lost_time(campaign, await self._outages.all()))
