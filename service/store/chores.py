"""Chores: what there is to tidy in a campaign, so that a job is enqueued only where one is due."""

from dataclasses import dataclass

from service.domain.campaign import Campaign
from service.store import keys
from service.store.scripts import Scripts


@dataclass(frozen=True, slots=True)
class Chores:
    """What there is to tidy, by the store's clock.

    `unwritten_extension` is the last one, if it is not written through yet; earlier ones may not be either.
    `needs_tending` where a shard lags behind the definition, coupons have expired or reservations have lapsed.
    """

    now_ms: int
    unwritten_extension: int | None
    needs_tending: bool


class ChoreStore:
    """Looks for chores. Its method raises StoreError when the store does not answer."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def find(self, campaign: Campaign) -> Chores:
        """What there is to tidy in the campaign: a look that costs little and writes nothing."""
        shards = [
            await self._scripts.run("read_chores", [keys.state_key(campaign.id, shard)])
            for shard in range(campaign.shards)
        ]
        last = max(made for _, _, made, _, _ in shards)
        all_written = all(made == last and not unwritten for _, _, made, unwritten, _ in shards)
        return Chores(
            now_ms=max(now_ms for now_ms, *_ in shards),
            unwritten_extension=None if all_written else last,
            needs_tending=any(version < campaign.version or untidy for _, version, _, _, untidy in shards),
        )
