"""A block of records as it lies in the store, not read by the scripts: for tests that look at it or harm it."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from redis.asyncio import Redis

BLOCK: Final = 32
ROW: Final = 8
PART: Final = struct.Struct(">BBH")
HEAD_BYTES: Final = 22
SHARED_BYTES: Final = HEAD_BYTES + 1

Block = Mapping[Any, Any]
"""What HGETALL returns: bytes by bytes, though its stubs do not say so."""


def block_key(campaign_id: str, sequence: int) -> str:
    """The key of the block that has the coupon of that sequence, in the first shard."""
    return f"tg:{{{campaign_id}:0}}:coupons:{sequence // BLOCK}"


@dataclass(frozen=True)
class _Part:
    """Coupons that share a record; `first` is the first one's place in the block."""

    first: int
    shared: bytes
    users: tuple[bytes, ...]

    def packed(self) -> bytes:
        users = b"".join(user + b"\0" for user in self.users)
        return PART.pack(self.first % ROW, len(self.users), len(users)) + self.shared + users

    def without(self, place: int) -> Iterator["_Part"]:
        at = place - self.first
        if not 0 <= at < len(self.users):
            yield self
            return
        for part in replace(self, users=self.users[:at]), replace(self, first=place + 1, users=self.users[at + 1 :]):
            if part.users:
                yield part


def read_block(block: Block) -> dict[int, bytes]:
    """Each coupon's record by its place, as if nothing were shared: with its user in it."""
    fields = {int(field): packed for field, packed in block.items()}
    shared = {
        part.first + i: (part.shared, user)
        for field, row in fields.items()
        if field >= BLOCK
        for part in _parts(field, row)
        for i, user in enumerate(part.users)
    }
    records = {place: record for place, (record, _) in shared.items()}
    records |= {place: record for place, record in fields.items() if place < BLOCK}
    return {place: _with_user(record, shared.get(place)) for place, record in records.items()}


def without(block: Block, *places: int) -> dict[bytes, bytes]:
    """The block as if no coupons had ever been at those places."""
    left = {int(field): packed for field, packed in block.items() if int(field) not in places}
    for place in places:
        field = BLOCK + place // ROW
        if field in left:
            left[field] = b"".join(part.packed() for old in _parts(field, left[field]) for part in old.without(place))
    return {b"%d" % field: packed for field, packed in left.items() if packed}


async def replace_block(client: Redis, key: str, block: Block) -> None:
    """Put the block in the place of the one that is there."""
    await client.delete(key)
    if block:
        await client.hset(key, mapping={**block})


def _parts(field: int, row: bytes) -> Iterator[_Part]:
    at = 0
    while at < len(row):
        first, count, length = PART.unpack_from(row, at)
        at += PART.size
        shared, users = row[at : at + SHARED_BYTES], row[at + SHARED_BYTES : at + SHARED_BYTES + length]
        at += SHARED_BYTES + length
        part = _Part((field - BLOCK) * ROW + first, shared, tuple(users.split(b"\0")[:-1]))
        assert len(part.users) == count
        yield part


def _with_user(record: bytes, shared: tuple[bytes, bytes] | None) -> bytes:
    if shared is None or record[HEAD_BYTES]:
        return record
    user = shared[1]
    return record[:HEAD_BYTES] + bytes([len(user)]) + user + record[SHARED_BYTES:]
