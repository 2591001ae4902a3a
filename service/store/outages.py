"""Outages: the times in which redemption was down, recorded once, in order, for all campaigns that stop the clock."""

from dataclasses import dataclass

import msgpack

from service.domain.extension import MAX_OUTAGES, Outage
from service.store import keys
from service.store.scripts import Scripts


@dataclass(frozen=True, slots=True)
class Overlaps:
    """Part of that time was recorded already, as the outage of that number."""

    number: int


class TooManyOutages(Exception):
    """There are as many outages as there may be."""


class OutageStore:
    """Records outages. Every method raises StoreError when the store does not answer."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def record(self, from_ms: int, to_ms: int, reason: str, actor: str) -> Outage | Overlaps:
        """Record an outage, unless part of it is recorded. Raises TooManyOutages."""
        word, *number = await self._scripts.run(
            "record_outage", [keys.OUTAGES], from_ms, to_ms, MAX_OUTAGES, reason, actor
        )
        match word:
            case b"recorded":
                return Outage(number=number[0], from_ms=from_ms, to_ms=to_ms, reason=reason, actor=actor)
            case b"overlaps":
                return Overlaps(number[0])
            case _:
                raise TooManyOutages

    async def all(self) -> list[Outage]:
        """The outages in the order in which they were recorded."""
        packed = await self._scripts.run("read_outages", [keys.OUTAGES])
        return [Outage(number=number, **msgpack.unpackb(each)) for number, each in enumerate(packed, start=1)]
