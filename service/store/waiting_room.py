"""The waiting rooms: one script moves a campaign's line on and hands out its places, a whole batch in one call.

A room is one small hash of counters, whatever its line is long: who stands where is sealed into the tickets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgpack
from redis.asyncio import Redis

from service.domain.breaker import BreakerPolicy
from service.domain.campaign import CampaignStatus
from service.domain.outcomes import CampaignNotRunning
from service.domain.waiting_room import COUNTING_MS, GRACE_MS, MAX_WAITING, Call, Line
from service.store import keys
from service.store.catalogue import KnownCampaign
from service.store.scripts import Scripts, store_errors

MAX_ROOMS: Final = 256
"""How many campaigns may have people waiting at once: each process turns every room several times a second."""

Claimant: TypeAlias = tuple[str, int, bytes]
"""A user, his bucket, and the digest that a coupon of his would be claimed under."""


@dataclass(frozen=True, slots=True)
class Turned:
    """The line as it now is, and the numbers that were handed out: None where everybody may go straight in.

    `abandoned` is how many of those called had not come when their calls ended in this turn.
    """

    line: Line
    numbers: range | None
    abandoned: int


class WaitingRoomStore:
    """Moves lines on. Every method raises StoreError when the store does not answer."""

    def __init__(self, client: Redis, scripts: Scripts, policy: BreakerPolicy, most_waiting: int = MAX_WAITING) -> None:
        self._client = client
        self._scripts = scripts
        self._policy = policy
        self._most_waiting = most_waiting

    async def turn(
        self, known: KnownCampaign, share_permille: int, wanted: int, passed: Mapping[int, int]
    ) -> Turned | CampaignNotRunning | None:
        """Bring the line to the present moment and hand out as many of the `wanted` places as there are.

        `passed` counts those who came, by the first number of their call. Where a campaign issues nothing any more, or
        nothing yet and nobody waits, that is told instead; None is for one that the store does not know.
        """
        reply = await self._scripts.run(
            "waiting_room",
            [known.state_keys[0]],
            share_permille,
            self._policy.ramp_ms,
            self._policy.ramp_start_permille,
            known.campaign.shards,
            GRACE_MS + COUNTING_MS,
            self._most_waiting,
            wanted,
            msgpack.packb([number for pair in passed.items() for number in pair]),
        )
        match reply:
            case [b"line", now_ms, opened_at_ms, paused, *numbers, flat, abandoned, starts_at_ms]:
                rate, next_number, called, first, places = numbers
                calls = tuple(Call(at_ms, number) for at_ms, number in zip(flat[::3], flat[1::3], strict=True))
                line = Line(now_ms, opened_at_ms or None, bool(paused), rate, next_number, called, calls, starts_at_ms)
                return Turned(line, None if places < 0 else range(first, first + places), abandoned)
            case [b"not_running", status, starts_in_ms]:
                return CampaignNotRunning(CampaignStatus(status.decode()), starts_in_ms if starts_in_ms >= 0 else None)
            case _:
                return None

    async def claimed(self, known: KnownCampaign, shard: int, batch: Sequence[Claimant]) -> list[bool]:
        """Tell of each claim of one shard whether a coupon was issued under it."""
        users = msgpack.packb([field for user_id, bucket, _ in batch for field in (user_id, bucket)])
        digests = b"".join([digest for _, _, digest in batch])
        return list(map(bool, await self._scripts.run("read_claims", [known.state_keys[shard]], users, digests)))

    async def rooms(self) -> set[str]:
        """The campaigns whose waiting rooms are in use."""
        with store_errors():
            members = await self._client.smembers(keys.ROOMS)
        return {member.decode() if isinstance(member, bytes) else member for member in members}

    async def open(self, campaign_id: str) -> bool:
        """Have every process turn the campaign's room; False when there are as many rooms as there may be."""
        return bool(await self._scripts.run("open_room", [keys.ROOMS], campaign_id, MAX_ROOMS))

    async def close(self, campaign_id: str) -> None:
        """Have no process turn the campaign's room any more."""
        with store_errors():
            await self._client.srem(keys.ROOMS, campaign_id)
