"""Why: all replicas must pause and reopen as one, so the breaker's record lives where each of them can see it.

The record changes by compare-and-set on its epoch; a replica's pulse leaves its vote and reads what is in force.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.domain.breaker import BreakerRecord
from service.store.scripts import STORE_CLOCK, Scripts, StoreError, StoreTimeout, StoreUnreachable

STATE_KEY: Final = "tg:{breaker}:state"
VOTES_KEY: Final = "tg:{breaker}:votes"
CHANNEL: Final = "tg:breaker"
CALL_TIMEOUT_S: Final = 0.4
SUBSCRIBE_TIMEOUT_S: Final = 2.0
VOTE_RENEWED_AFTER_MS: Final = 1_000
VOTE_SILENT_AFTER_MS: Final = 3_000


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a replica learns: the store's time, the record in force, and every live replica's vote, its own included."""

    now_ms: int
    record: BreakerRecord
    votes: Mapping[str, str]


class SharedBreakerState:
    """The breaker's record in the store.

    A call ends within CALL_TIMEOUT_S. Clients must not retry by themselves; `subscription` is for one of its own with
    a health check interval, without which a link that dies silently goes unnoticed. `clock` is the scripts' fragment.
    """

    def __init__(self, commands: Redis, subscription: Redis | None = None, clock: str = STORE_CLOCK) -> None:
        self._scripts = Scripts(commands, clock)
        self._subscription = subscription or commands

    async def pulse(self, replica_id: str, sick: str) -> Pulse:
        """Leave this replica's vote, the reason why it is sick or nothing, and return what is in force.

        Raises StoreError.
        """
        now_ms, record, *votes = await self._run(
            "breaker_pulse", [STATE_KEY, VOTES_KEY], replica_id, sick, VOTE_RENEWED_AFTER_MS, VOTE_SILENT_AFTER_MS
        )
        return Pulse(int(now_ms), _record(record), dict(zip(votes[::2], votes[1::2], strict=True)))

    async def change(self, built_on: BreakerRecord, proposal: BreakerRecord) -> BreakerRecord:
        """Put `proposal` in force unless another came first, and return the record in force, whoever's it is.

        Raises StoreError; after a StoreTimeout nobody knows whose it is.
        """
        _word, record = await self._run(
            "breaker_change", [STATE_KEY], built_on.epoch, proposal.epoch, proposal.to_json(), CHANNEL
        )
        return _record(record)

    async def follow(self, heard: Callable[[BreakerRecord], None]) -> None:
        """Call `heard` with every record put in force from now on, until the link breaks: then raise StoreError."""
        try:
            async with self._subscription.pubsub(ignore_subscribe_messages=True) as subscriber:
                async with asyncio.timeout(SUBSCRIBE_TIMEOUT_S):
                    await subscriber.subscribe(CHANNEL)
                _end_if_cancelled()
                async for message in subscriber.listen():
                    heard(_record(_text(message["data"])))
        except (RedisError, OSError) as error:
            raise StoreUnreachable(str(error)) from error

    async def _run(self, name: str, keys: list[str], *arguments: str | int) -> list[str]:
        _end_if_cancelled()
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                answer = await self._scripts.run(name, keys, *arguments)
        except TimeoutError as error:
            raise StoreTimeout(f"no answer in {CALL_TIMEOUT_S} s") from error
        return [_text(item) for item in answer]


def _end_if_cancelled() -> None:
    # Before Python 3.12 asyncio.wait_for, with which redis-py sends, may swallow a cancellation.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _record(text: str) -> BreakerRecord:
    if not text:
        return BreakerRecord()
    try:
        return BreakerRecord.from_json(text)
    except ValueError as error:
        raise StoreError(str(error)) from error


def _text(item: Any) -> str:
    return item.decode() if isinstance(item, bytes) else str(item)
