"""A shard's ledger as it lies in the store, not read by the scripts: for tests that look at it or harm it."""

import struct
from collections.abc import Mapping
from typing import Any, Final

from redis.asyncio import Redis

FIELD: Final = b"ledger"
FORM: Final = (8, 6, 5, 5, 5, 5, 5, 5, 8)
NAMES: Final = (
    "tokens",
    "tokens_at",
    "issued",
    "outstanding",
    "reserved",
    "redeemed",
    "expired",
    "deactivated",
    "committed",
)


def read_ledger(packed: bytes) -> dict[str, int]:
    """The bucket and the counters by their names."""
    assert len(packed) == sum(FORM)
    texts = struct.unpack("".join(f"{width}s" for width in FORM), packed)
    return {name: int.from_bytes(text) for name, text in zip(NAMES, texts, strict=True)}


async def drift(client: Redis, state_key: str, by: Mapping[str, int]) -> None:
    """Let the shard's counters drift by that much."""
    packed: Any = await client.hget(state_key, FIELD)
    ledger = {name: value + by.get(name, 0) for name, value in read_ledger(packed).items()}
    drifted = b"".join(value.to_bytes(width) for value, width in zip(ledger.values(), FORM, strict=True))
    await client.hset(state_key, FIELD, drifted)
