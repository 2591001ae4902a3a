"""Previews: what an extension would change, counted without changing anything; a long one is counted by a job.

A job's preview is kept with its checkpoint in one value, so that a killed worker is continued and nothing counts twice.
"""

from dataclasses import dataclass
from typing import Final, Self

import msgpack

from service.domain.campaign import Campaign
from service.domain.extension import Terms
from service.store import keys
from service.store.scope import pack_scope, unpack_scope
from service.store.scripts import Scripts

COUPONS_PER_CALL: Final = 512
"""How many coupons one call looks at: at most four milliseconds of the store's time."""
COUNTED_AT_ONCE: Final = 50_000
"""So many coupons are counted while the caller waits: about a tenth of a second."""
KEPT_FOR_S: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What an extension would do: of `total` coupons, `done` were looked at and `changed` would be valid for longer.

    Of those, `revived` are over now. In minor units: `liability` is what the changed ones may cost at most, and the
    budget must cover `budget_needed` of it again. `number` is 0 where it was counted at once.
    """

    number: int
    terms: Terms
    total: int
    done: int = 0
    changed: int = 0
    revived: int = 0
    liability: int = 0
    budget_needed: int = 0
    shard: int = 0
    first: int = 0

    @property
    def is_made(self) -> bool:
        """Whether all coupons were looked at."""
        return self.done >= self.total

    def pack(self) -> bytes:
        """In a form that `unpack` reads."""
        terms, numbers = self.terms, {name: getattr(self, name) for name in _NUMBERS}
        words = {
            "until_ms": terms.until_ms,
            "reason": terms.reason,
            "actor": terms.actor,
            "include_expired": terms.include_expired,
            "scope": pack_scope(terms.scope),
        }
        packed: bytes = msgpack.packb(words | numbers)
        return packed

    @classmethod
    def unpack(cls, number: int, packed: bytes) -> Self:
        """From what `pack` has made."""
        fields = msgpack.unpackb(packed)
        terms = Terms(
            until_ms=fields["until_ms"],
            reason=fields["reason"],
            actor=fields["actor"],
            include_expired=fields["include_expired"],
            scope=unpack_scope(fields["scope"]),
        )
        return cls(number=number, terms=terms, **{name: fields[name] for name in _NUMBERS})


_NUMBERS: Final = ("total", "done", "changed", "revived", "liability", "budget_needed", "shard", "first")


class PreviewStore:
    """Counts what extensions would change. Every method raises StoreError when the store does not answer."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def begin(self, campaign: Campaign, terms: Terms, issued: int) -> Preview:
        """Count at once where `issued` coupons are few, else keep a preview for a job, in place of an unmade one."""
        if issued > COUNTED_AT_ONCE:
            preview = Preview(number=0, terms=terms, total=issued)
            number = await self._scripts.run("begin_preview", [_leading(campaign)], preview.pack(), KEPT_FOR_S)
            return Preview(number=number, terms=terms, total=issued)
        preview = Preview(number=0, terms=terms, total=max(1, issued))
        while preview.shard < campaign.shards:
            preview = await self._look(campaign, preview)
        return preview

    async def read(self, campaign: Campaign, number: int) -> Preview | None:
        """A job's preview as it stands; None where there is none, or not any more."""
        packed = await self._scripts.run("read_preview", [_leading(campaign)], number)
        return None if packed is None else Preview.unpack(number, packed)

    async def count(self, campaign: Campaign, number: int) -> bool:
        """Count the next coupons, with the checkpoint; whether any are left."""
        preview = await self.read(campaign, number)
        if preview is None or preview.shard >= campaign.shards:
            return False
        preview = await self._look(campaign, preview)
        is_made = preview.shard >= campaign.shards
        kept = await self._scripts.run("keep_preview", [_leading(campaign)], number, preview.pack(), int(is_made))
        return bool(kept) and not is_made

    async def _look(self, campaign: Campaign, preview: Preview) -> Preview:
        terms = preview.terms
        rule = msgpack.packb({"until_ms": terms.until_ms, "include_expired": terms.include_expired})
        state_key = keys.state_key(campaign.id, preview.shard)
        last, issued, *counted = await self._scripts.run(
            "preview_extension", [state_key], preview.first, COUPONS_PER_CALL, rule, pack_scope(terms.scope)
        )
        changed, revived, liability, budget_needed = counted
        shard_is_over = last >= issued
        shard = preview.shard + shard_is_over
        done = preview.done + last - preview.first
        return Preview(
            number=preview.number,
            terms=terms,
            # Coupons are issued meanwhile: in the end it has looked at all there were.
            total=done if shard >= campaign.shards else max(preview.total, done + 1),
            done=done,
            changed=preview.changed + changed,
            revived=preview.revived + revived,
            liability=preview.liability + liability,
            budget_needed=preview.budget_needed + budget_needed,
            shard=shard,
            first=0 if shard_is_over else last,
        )


def _leading(campaign: Campaign) -> str:
    return keys.state_key(campaign.id, 0)
