"""The shards' event streams, read in bounded pages, in order and without a gap."""

import asyncio
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any, Final

import msgpack
from redis.asyncio import Redis, RedisCluster

from service.domain.campaign import Campaign
from service.domain.events import BEGINNING, Cursor, Event, EventId
from service.store import keys
from service.store.scripts import store_errors

EVENTS_PER_READ: Final = 200
"""Events of one shard that one read returns at most: with their codes a few megabytes at the very worst."""
WAIT_MS: Final = 1_000
"""How long `wait` waits for news at most, so that whoever waits can be told to stop."""
GATHER_S: Final = 0.05
CLUSTER_POLL_S: Final = 0.2


class CursorTooOld(Exception):
    """Events after the cursor were exported and trimmed."""


class EventStore:
    """Reads events. Every method raises StoreError when the store does not answer.

    For `wait` the client must be one that waits for longer than WAIT_MS.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def read(self, campaign: Campaign, cursor: Cursor, count: int = EVENTS_PER_READ) -> list[Event]:
        """The next events after the cursor, of all shards: `count` a shard at most. Raises CursorTooOld."""
        shards = [await self.read_shard(campaign.id, shard, after, count) for shard, after in enumerate(cursor.ids)]
        return sorted((event for events in shards for event in events), key=lambda event: event.id)

    async def read_shard(
        self, campaign_id: str, shard: int, after: EventId, count: int = EVENTS_PER_READ
    ) -> list[Event]:
        """The next events of one shard. Raises CursorTooOld."""
        with store_errors():
            entries: Any = await self._client.xrange(keys.events_key(campaign_id, shard), f"({after}", "+", count)
            # Asked afterwards, so that what is trimmed between the two calls cannot go unnoticed.
            trimmed = await self._trimmed(campaign_id, shard)
        if after < trimmed:
            raise CursorTooOld(f"event {trimmed} and those before it were trimmed")
        return [_event(shard, *entry) for entry in entries]

    async def wait(self, campaign: Campaign, cursor: Cursor) -> None:
        """Return when there may be events after the cursor, after WAIT_MS at the latest."""
        if isinstance(self._client, RedisCluster):
            # Its shards lie on several nodes, and no command waits for all of them.
            await asyncio.sleep(CLUSTER_POLL_S)
            return
        streams = {keys.events_key(campaign.id, shard): str(after) for shard, after in enumerate(cursor.ids)}
        with store_errors():
            await self._client.xread(streams, count=1, block=WAIT_MS)  # type: ignore[arg-type]  # dict is invariant
        # What comes in the same moment is read together, so that a rush costs the store no read a batch.
        await asyncio.sleep(GATHER_S)

    async def oldest(self, campaign: Campaign) -> Cursor:
        """The cursor of somebody who has read nothing but what was trimmed."""
        with store_errors():
            return Cursor(tuple([await self._trimmed(campaign.id, shard) for shard in range(campaign.shards)]))

    async def now_ms(self) -> int:
        """What time it is for the server that dates events."""
        with store_errors():
            seconds, microseconds = await self._client.time()
        return seconds * 1000 + microseconds // 1000

    async def _trimmed(self, campaign_id: str, shard: int) -> EventId:
        trimmed = await self._client.hget(keys.export_key(campaign_id, shard), "trimmed")
        return BEGINNING if trimmed is None else EventId.parse(_text(trimmed))


def _event(shard: int, event_id: bytes, fields: Mapping[bytes, bytes]) -> Event:
    kind = _text(fields[b"type"])
    data = msgpack.unpackb(fields[b"data"], strict_map_key=False, unicode_errors="replace")
    return Event(shard, EventId.parse(_text(event_id)), kind, _named(kind, data))


def _named(kind: str, data: Any) -> dict[str, Any]:
    """The data by name: the scripts pack them so, or by place, where every byte counts."""
    match kind, data:
        case "coupon.issued", [first, count, int() as amount]:
            return {"coupons": [first, count], "amount": amount}
        case "coupon.issued", [first, count, amounts]:
            return {"coupons": [first, count], "amounts": amounts}
        case "coupon.issued", {"first": first, "count": count}:
            return {"coupons": [first, count]}
        case _, [list() as coupons, list() as told, (str() | False) as reason]:
            in_fours = [told[at : at + 4] for at in range(0, len(told), 4)]
            return {"coupons": coupons, "redemptions": in_fours} | _why(reason)
        case _, [list() as coupons, merchants, orders, discounts, attempts, (str() | False) as reason]:
            each = attempts if isinstance(attempts, list) else repeat(attempts, len(coupons))
            in_fours = [list(told) for told in zip(each, merchants, orders, discounts, strict=True)]
            return {"coupons": _runs(coupons), "redemptions": in_fours} | _why(reason)
        case _, dict():
            return data
        case "quota.raised", [user_id, max_coupons, reason]:
            return {"user_id": user_id, "max_coupons": max_coupons, "reason": reason}
        case "campaign.extended", [extension, until_ms, reason]:
            return {"extension": extension, "until_ms": until_ms, "reason": reason}
        case "coupon.extended", [extension, sequences]:
            return {"coupons": _runs(sequences), "extension": extension}
        case "coupon.expired" | "coupon.lapsed", sequences:
            return {"coupons": _runs(sequences)}
        case "coupon.deactivated", [sequence, reason]:
            return {"coupons": [sequence, 1], "reason": reason}
        case _, [int() as sequence, int() as attempt, reason]:
            return {"coupons": [sequence, 1], "attempt": attempt, "reason": reason}
        case _, _:
            redemptions = [[attempt, merchant, order, discount] for _, attempt, _, merchant, order, discount in data]
            return {"coupons": _runs([item[0] for item in data]), "redemptions": redemptions}


def _runs(sequences: Sequence[int]) -> list[int]:
    return [number for sequence in sequences for number in (sequence, 1)]


def _why(reason: Any) -> dict[str, Any]:
    return {} if reason is False else {"reason": reason}


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
