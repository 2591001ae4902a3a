"""Extensions: one short entry a shard makes them true at once, and chunks of work write them through afterwards."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from service.domain.campaign import Campaign
from service.domain.validity import MAX_EXTENSIONS
from service.store import keys
from service.store.scripts import Scripts

COUPONS_PER_CALL: Final = 1_024
"""How many coupons one call writes through or sweeps: a few milliseconds of the store's time."""


class ExtensionStatus(StrEnum):
    """How far the write-through of an extension is; for redeeming it holds from the start."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ExtensionProgress:
    """An extension and how many of the `total` coupons that it concerns were looked at and `changed`."""

    campaign_id: str
    number: int
    made_at_ms: int
    until_ms: int
    total: int
    done: int
    changed: int
    reason: str
    failure: str

    @property
    def status(self) -> ExtensionStatus:
        """Follows from the figures; a failure stands until work goes on."""
        if self.done >= self.total:
            return ExtensionStatus.COMPLETED
        if self.failure:
            return ExtensionStatus.FAILED
        return ExtensionStatus.RUNNING if self.done else ExtensionStatus.PENDING


class ExtensionStore:
    """Makes extensions and writes them through. Every method raises StoreError when the store does not answer."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def extend(self, campaign: Campaign, until_ms: int, reason: str) -> ExtensionProgress | None:
        """Extend every coupon's validity, in one write a shard; None when the campaign has been extended too often.

        The first shard numbers and dates the extension. If the process dies before the others have it, `progress` and
        the next extension give it to them.
        """
        reply = await self._add(campaign, 0, 0, 0, until_ms, reason)
        if reply[0] != b"extended":
            return None
        _, number, _ = reply
        await self._spread(campaign, number)
        return await self.progress(campaign, number)

    async def progress(self, campaign: Campaign, number: int) -> ExtensionProgress | None:
        """How far the extension is, over all shards; None where it was never made."""
        replies = [await self._read(campaign, shard, number) for shard in range(campaign.shards)]
        if replies[0] is None:
            return None
        if None in replies:
            await self._spread(campaign, number)
            replies = [await self._read(campaign, shard, number) for shard in range(campaign.shards)]
        made_at_ms, until_ms, *_, reason, failure = replies[0]
        done, total, changed = (sum(reply[field] for reply in replies) for field in (2, 3, 4))
        return ExtensionProgress(
            campaign.id, number, made_at_ms, until_ms, total, done, changed, reason.decode(), failure.decode()
        )

    async def preview(self, campaign: Campaign, until_ms: int, reason: str) -> ExtensionProgress:
        """What `extend` would change now, over all shards; it has number 0 and writes nothing."""
        total = changed = 0
        for shard in range(campaign.shards):
            looked_at, issued = 0, 1
            while looked_at < issued:
                looked_at, issued, changing = await self._scripts.run(
                    "preview_extension", [keys.state_key(campaign.id, shard)], looked_at, until_ms, COUPONS_PER_CALL
                )
                changed += changing
            total += issued
        return ExtensionProgress(campaign.id, 0, 0, until_ms, total, total, changed, reason, "")

    async def write_through(self, campaign: Campaign, shard: int, number: int) -> bool:
        """Write the extension through to the shard's next coupons, with its checkpoint; whether any are left."""
        state_key = keys.state_key(campaign.id, shard)
        reply = await self._scripts.run("apply_extension", [state_key], number, COUPONS_PER_CALL)
        return reply is not None and reply[0] < reply[1]

    async def note_failure(self, campaign: Campaign, number: int, failure: str) -> None:
        """Show why the extension is not written through, or with nothing that the work goes on."""
        await self._scripts.run("note_failure", [keys.state_key(campaign.id, 0)], number, failure)

    async def expire(self, campaign: Campaign, shard: int) -> bool:
        """Mark the shard's next expired coupons and return their money; whether there may be more."""
        state_key = keys.state_key(campaign.id, shard)
        reply = await self._scripts.run("expire", [state_key], COUPONS_PER_CALL)
        return reply is not None and reply[0] == b"more"

    async def lapse(self, campaign: Campaign, shard: int) -> bool:
        """Free the shard's reservations whose time is over; whether there may be more."""
        freed = await self._scripts.run("lapse", [keys.state_key(campaign.id, shard)], COUPONS_PER_CALL)
        return bool(freed == COUPONS_PER_CALL)

    async def _add(
        self, campaign: Campaign, shard: int, number: int, made_at_ms: int, until_ms: int, reason: str | bytes
    ) -> list[Any]:
        state_key = keys.state_key(campaign.id, shard)
        reply: list[Any] = await self._scripts.run(
            "extend", [state_key], number, made_at_ms, until_ms, MAX_EXTENSIONS, reason
        )
        return reply

    async def _spread(self, campaign: Campaign, number: int) -> None:
        """Give every other shard the extension, after those before it that the shard lacks."""
        for shard in range(1, campaign.shards):
            following = number
            while following <= number:
                made_at_ms, until_ms, *_, reason, _ = await self._read(campaign, 0, following)
                _, _, following = await self._add(campaign, shard, following, made_at_ms, until_ms, reason)

    async def _read(self, campaign: Campaign, shard: int, number: int) -> Any:
        return await self._scripts.run("read_extension", [keys.state_key(campaign.id, shard)], number)
