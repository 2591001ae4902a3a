"""The records of a campaign's first shard as they lie in the store, not read by the scripts: for tests that look at
them or harm them."""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from redis.asyncio import Redis

ROW: Final = 32
"""So many neighbours are one row, and are looked at together."""
NAMES: Final = 65_536
"""The names of a row's users stand so many fields behind it."""
PART: Final = struct.Struct(">BBH")
HEAD_BYTES: Final = 22
SHARED_BYTES: Final = HEAD_BYTES + 1

Hash = Mapping[Any, Any]
"""What HGETALL returns: bytes by bytes, though its stubs do not say so."""


def rows_key(campaign_id: str) -> str:
    """The key of the rows in which coupons share their records."""
    return f"tg:{{{campaign_id}:0}}:rows:0"


def records_key(campaign_id: str) -> str:
    """The key of the records that coupons have of their own."""
    return f"tg:{{{campaign_id}:0}}:coupons:0"


@dataclass(frozen=True)
class _Part:
    """Coupons that share a record, from the first one's sequence on."""

    first: int
    count: int
    shared: bytes

    def packed(self) -> bytes:
        return PART.pack(self.first % ROW, self.count, 0) + self.shared

    def without(self, sequence: int) -> Iterator["_Part"]:
        at = sequence - self.first
        if not 0 <= at < self.count:
            yield self
            return
        for part in replace(self, count=at), replace(self, first=sequence + 1, count=self.count - at - 1):
            if part.count:
                yield part


def unpacked(rows: Hash, own: Hash) -> dict[int, bytes]:
    """Each coupon's record by its sequence, as if nothing were shared: with its user in it."""
    fields = {int(field): text for field, text in rows.items()}
    users = {
        (field - NAMES) * ROW + place: user
        for field, names in fields.items()
        if field >= NAMES
        for place, user in enumerate(names.split(b"\0")[:-1])
    }
    records = {
        part.first + i: part.shared
        for field, row in fields.items()
        if field < NAMES
        for part in _parts(field, row)
        for i in range(part.count)
    }
    records |= {int(sequence): record for sequence, record in own.items()}
    return {sequence: _with_user(record, users.get(sequence)) for sequence, record in records.items()}


def without(rows: Hash, *sequences: int) -> dict[bytes, bytes]:
    """The rows as if no coupons had ever had these sequences."""
    left = {int(field): text for field, text in rows.items()}
    for sequence in sequences:
        row = sequence // ROW
        left[row] = b"".join(part.packed() for old in _parts(row, left[row]) for part in old.without(sequence))
    return {b"%d" % field: text for field, text in left.items() if text}


async def read_records(client: Redis, campaign_id: str) -> dict[int, bytes]:
    """All records, by the sequences of their coupons."""
    return unpacked(*[await client.hgetall(key) for key in (rows_key(campaign_id), records_key(campaign_id))])


async def lose_records(client: Redis, campaign_id: str, *sequences: int) -> None:
    """Leave the store as if these coupons had never been written."""
    left: Hash = without(await client.hgetall(rows_key(campaign_id)), *sequences)
    await client.delete(rows_key(campaign_id))
    if left:
        await client.hset(rows_key(campaign_id), mapping={**left})
    await client.hdel(records_key(campaign_id), *map(str, sequences))


def _parts(number: int, row: bytes) -> Iterator[_Part]:
    for at in range(0, len(row), PART.size + SHARED_BYTES):
        first, count, names = PART.unpack_from(row, at)
        assert not names
        yield _Part(number * ROW + first, count, row[at + PART.size : at + PART.size + SHARED_BYTES])


def _with_user(record: bytes, user: bytes | None) -> bytes:
    if user is None or record[HEAD_BYTES : HEAD_BYTES + 1] != b"\0":
        return record
    return record[:HEAD_BYTES] + bytes([len(user)]) + user + record[SHARED_BYTES:]
