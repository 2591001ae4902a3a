"""Extensions: one short entry a shard makes them true at once, and chunks of work write them through afterwards.

A scoped extension is an entry too, but it holds for a coupon only from when its chunk was worked off. What an entry
says and how far it is stands in the shard's `extension:<n>`; the first shard leads, the others follow.
"""

from enum import StrEnum
from typing import Any, Final, assert_never

import msgpack

from service.domain.campaign import Campaign
from service.domain.extension import Outage, Terms, lost_time
from service.domain.validity import MAX_EXTENSIONS
from service.store import keys
from service.store.extension_progress import ExtensionProgress, ShardProgress, progress_of
from service.store.outages import OutageStore
from service.store.previews import PreviewStore
from service.store.scope import pack_scope
from service.store.scripts import Scripts

COUPONS_PER_CALL: Final = 256
"""How many coupons one call writes through or sweeps: so few that it holds up a redemption no longer than another
redemption with its write to disk would."""


class ExtensionRefusal(StrEnum):
    """Why an extension was not made or not undone."""

    TOO_MANY_EXTENSIONS = "too_many_extensions"
    KNOWN = "known"
    UNKNOWN = "unknown"
    UNDO_WINDOW_OVER = "undo_window_over"


class ExtensionStore:
    """Makes extensions and writes them through. Every method raises StoreError when the store does not answer."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self.previews = PreviewStore(scripts)
        self.outages = OutageStore(scripts)

    async def extend(self, campaign: Campaign, terms: Terms | Outage) -> ExtensionProgress | ExtensionRefusal:
        """Make an extension, in one write a shard; KNOWN for an outage that the campaign has had already.

        The first shard numbers and dates it. If the process dies before the others have it, `progress` and the next
        extension give it to them.
        """
        reply = await self._add(campaign, 0, 0, 0, _packed_terms(terms), _packed_scope(terms))
        if reply[0] != b"extended":
            return ExtensionRefusal(reply[0].decode())
        return await self._followed(campaign, reply[1])

    async def give_back_lost_time(self, campaign: Campaign) -> list[ExtensionProgress]:
        """Extend by the outages that the campaign has not had yet, if it stops the clock and can be extended so often.

        Returns the extensions made.
        """
        made = []
        for outage in lost_time(campaign, await self.outages.all() if campaign.stop_the_clock else []):
            extended = await self.extend(campaign, outage)
            if isinstance(extended, ExtensionProgress):
                made.append(extended)
        return made

    async def undo(
        self, campaign: Campaign, number: int, window_ms: int, reason: str, actor: str
    ) -> ExtensionProgress | ExtensionRefusal:
        """Take the extension back within `window_ms` of its making, in one write a shard. Twice changes nothing."""
        if await self.progress(campaign, number) is None:
            return ExtensionRefusal.UNKNOWN
        reply = await self._undo(campaign, 0, number, 0, 0, window_ms, reason, actor)
        if reply[0] != b"undone":
            return ExtensionRefusal(reply[0].decode())
        return await self._followed(campaign, number)

    async def progress(self, campaign: Campaign, number: int) -> ExtensionProgress | None:
        """How far the extension is, over all shards; None where it was never made."""
        shards = [await self._read(campaign, shard, number) for shard in range(campaign.shards)]
        first, *others = shards
        if first is None:
            return None
        if any(other is None or (first.undo is not None and other.undo is None) for other in others):
            await self._spread(campaign, number)
            shards = [await self._read(campaign, shard, number) for shard in range(campaign.shards)]
        return progress_of(campaign, number, [shard for shard in shards if shard is not None])

    async def write_through(self, campaign: Campaign, shard: int, number: int) -> bool:
        """Write the extension through to the shard's next coupons, with its checkpoint; whether any are left."""
        return await self._advance("apply_extension", campaign, shard, number)

    async def write_undo_through(self, campaign: Campaign, shard: int, number: int) -> bool:
        """Write the undoing through to the shard's next coupons, with its checkpoint; whether any are left."""
        return await self._advance("apply_undo", campaign, shard, number)

    async def note_failure(self, campaign: Campaign, number: int, failure: str) -> None:
        """Show why the extension is not written through, or with nothing that the work goes on."""
        await self._scripts.run("note_failure", [keys.state_key(campaign.id, 0)], number, failure)

    async def expire(self, campaign: Campaign, shard: int) -> bool:
        """Mark the shard's next expired coupons and return their money; whether there may be more."""
        state_key = keys.state_key(campaign.id, shard)
        word = await self._scripts.run("expire", [state_key], COUPONS_PER_CALL)
        return bool(word == b"more")

    async def lapse(self, campaign: Campaign, shard: int) -> bool:
        """Free the shard's reservations whose time is over; whether there may be more."""
        due = await self._scripts.run("lapse", [keys.state_key(campaign.id, shard)], COUPONS_PER_CALL)
        return bool(due == COUPONS_PER_CALL)

    async def _advance(self, script: str, campaign: Campaign, shard: int, number: int) -> bool:
        reply = await self._scripts.run(script, [keys.state_key(campaign.id, shard)], number, COUPONS_PER_CALL)
        return reply is not None and reply[0] < reply[1]

    async def _followed(self, campaign: Campaign, number: int) -> ExtensionProgress:
        await self._spread(campaign, number)
        made = await self.progress(campaign, number)
        assert made is not None
        return made

    async def _spread(self, campaign: Campaign, number: int) -> None:
        """Give every other shard the extension, after those before it, and its undoing, after those before that."""
        led = await self._read(campaign, 0, number)
        assert led is not None
        undo = led.undo
        for shard in range(1, campaign.shards):
            last = following = number if undo is None else undo.made
            while following <= last:
                next_led = await self._read(campaign, 0, following)
                assert next_led is not None
                terms, scope = next_led.terms, next_led.scope
                *_, following = await self._add(campaign, shard, following, next_led.made_at_ms, terms, scope)
            if undo is not None:
                await self._undo(campaign, shard, number, undo.at_ms, undo.made, 0, undo.reason, undo.actor)

    async def _add(
        self, campaign: Campaign, shard: int, number: int, made_at_ms: int, terms: bytes, scope: bytes
    ) -> list[Any]:
        state_key = keys.state_key(campaign.id, shard)
        reply: list[Any] = await self._scripts.run(
            "extend", [state_key], number, made_at_ms, MAX_EXTENSIONS, terms, scope
        )
        return reply

    async def _undo(
        self,
        campaign: Campaign,
        shard: int,
        number: int,
        at_ms: int,
        made: int,
        window_ms: int,
        reason: str,
        actor: str,
    ) -> list[Any]:
        state_key = keys.state_key(campaign.id, shard)
        reply: list[Any] = await self._scripts.run(
            "undo_extension", [state_key], number, at_ms, made, window_ms, reason, actor
        )
        return reply

    async def _read(self, campaign: Campaign, shard: int, number: int) -> ShardProgress | None:
        fields = await self._scripts.run("read_extension", [keys.state_key(campaign.id, shard)], number)
        return ShardProgress.read(dict(zip(fields[::2], fields[1::2], strict=True))) if fields else None


def _packed_terms(terms: Terms | Outage) -> bytes:
    match terms:
        case Terms():
            said = {"until_ms": terms.until_ms, "include_expired": terms.include_expired}
        case Outage():
            said = {"by_ms": terms.length_ms, "outage": terms.number}
        case _:
            assert_never(terms)
    packed: bytes = msgpack.packb({**said, "reason": terms.reason, "actor": terms.actor})
    return packed


def _packed_scope(terms: Terms | Outage) -> bytes:
    match terms:
        case Terms():
            return pack_scope(terms.scope)
        case Outage():
            packed: bytes = msgpack.packb({"lost_from": terms.from_ms, "lost_to": terms.to_ms})
            return packed
        case _:
            assert_never(terms)
