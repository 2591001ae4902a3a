"""Recounts: the ledger says how many coupons are in which state and what they cost; the records must say the same.

The ledger moves with every change, and nobody would see it drift. So the records are counted anew, all the time, in
bounded chunks, while coupons go on being issued and redeemed.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgpack
from redis.asyncio import Redis

from service.domain.campaign import Campaign
from service.domain.codes import CouponAddress
from service.store import keys
from service.store.scripts import Scripts, store_errors

COUPONS_PER_CALL: Final = 1_024
MOST_NAMED: Final = 100
"""How many wrong records of one shard are named."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one call brought: how many of the coupons `issued` in the shard it has come to, and if that was the end."""

    done: int
    issued: int
    ended: bool


@dataclass(frozen=True, slots=True)
class Recount:
    """How far ledger and records were apart when they were last compared, over all shards; 0 everywhere, always.

    `coupons` are those that the ledger has in another state than the records, `money` is what it has committed in
    minor units where they have not; `wrong` records are missing or contradict themselves, and the first are `named`.
    """

    at_ms: int
    coupons: int
    money: int
    wrong: int
    named: tuple[CouponAddress, ...]

    @property
    def adds_up(self) -> bool:
        """Whether ledger and records say the same."""
        return not (self.coupons or self.money or self.wrong)


class RecountStore:
    """Recounts shards. Every method raises StoreError when the store does not answer."""

    def __init__(self, client: Redis, scripts: Scripts, coupons_per_call: int = COUPONS_PER_CALL) -> None:
        self._client = client
        self._scripts = scripts
        self._coupons_per_call = coupons_per_call

    async def go_on(self, campaign: Campaign, shard: int) -> Chunk:
        """Recount the shard's next coupons; at the end the result is kept, and the next call begins anew."""
        state_key = keys.state_key(campaign.id, shard)
        reply = await self._scripts.run("recount", [state_key], self._coupons_per_call, MOST_NAMED)
        done, issued, ended = reply or (0, 0, 1)
        return Chunk(done, issued, bool(ended))

    async def latest(self, campaign: Campaign) -> Recount | None:
        """What the last recount of every shard found; None until each has had one."""
        found: list[Any] = []
        for shard in range(campaign.shards):
            with store_errors():
                packed: Any = await self._client.hget(keys.state_key(campaign.id, shard), "recounted")
            if packed is None:
                return None
            found.append(msgpack.unpackb(packed))
        return Recount(
            at_ms=min(shard["at"] for shard in found),
            coupons=sum(shard["coupons"] for shard in found),
            money=sum(abs(shard["money"]) for shard in found),
            wrong=sum(shard["wrong"] for shard in found),
            named=tuple(CouponAddress(i, sequence) for i, shard in enumerate(found) for sequence in shard["named"]),
        )
