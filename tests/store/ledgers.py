"""A shard's ledger as it lies in the store, not read by the scripts: for tests that look at it or harm it."""

import struct
from collections.abc import Mapping
from typing import Any, Final

from redis.asyncio import Redis

FIELD: Final = b"ledger"
FORM: Final = (8, 6, 5, 5, 5, 5, 5, 5, 8)
COUNTERS: Final = ("issued", "outstanding", "reserved", "redeemed", "expired", "deactivated", "committed")
NAMES: Final = ("tokens", "tokens_at", *COUNTERS)


def read_ledger(packed: bytes) -> dict[str, int]:
    """The bucket and the counters by their names."""
    assert len(packed) == sum(FORM)
    texts = struct.unpack("".join(f"{width}s" for width in FORM), packed)
    return {name: int.from_bytes(text, signed=True) for name, text in zip(NAMES, texts, strict=True)}


def drifted(packed: bytes, by: Mapping[str, int]) -> bytes:
    """The ledger, whose figures have drifted by that much."""
    figures = [figure + by.get(name, 0) for name, figure in read_ledger(packed).items()]
    return b"".join(figure.to_bytes(width, signed=True) for figure, width in zip(figures, FORM, strict=True))


async def drift(client: Redis, state_key: str, by: Mapping[str, int]) -> None:
    """Let the figures of a shard's ledger drift by that much."""
    packed: Any = await client.hget(state_key, FIELD)
    await client.hset(state_key, FIELD, drifted(packed, by))
