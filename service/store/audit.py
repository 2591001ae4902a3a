"""The audit: the ledger rebuilt from day files and the rest of the stream, held against counters and records.

It may run while the campaign is issuing: each look at the store says by which event it was taken, and the ledger is
rebuilt up to that very event before the two are compared.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final

from service.domain.campaign import Campaign
from service.domain.coupon import Counters
from service.domain.events import BEGINNING, Event, EventId
from service.domain.ledger import NO_COUPON, STATUSES, LedgerBroken, Said, ShardLedger
from service.store import keys
from service.store.day_files import DayFilesBroken
from service.store.events import CursorTooOld, EventStore
from service.store.export import Exporter
from service.store.scripts import Scripts

COUPONS_PER_CALL: Final = 2_048
"""About a millisecond of the store's time; whole blocks, whatever their size."""
MOST_MISMATCHES: Final = 100
"""How many records of a shard are named; what else differs is counted."""
LOCK_ATTEMPTS: Final = 50
LOCK_PAUSE_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A coupon whose record says another status than the events, or another amount drawn from a pot.

    None where one of the two knows no coupon, or no amount.
    """

    shard: int
    sequence: int
    told: str | None
    recorded: str | None
    told_amount: int | None = None
    recorded_amount: int | None = None


@dataclass(frozen=True, slots=True)
class ShardAudit:
    """What the audit of one shard has found. `broken` says why there is nothing to compare, where that is so."""

    shard: int
    events: int
    told: Counters | None
    kept: Counters | None
    mismatches: tuple[Mismatch, ...]
    differing: int
    broken: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether events, counters and records all say the same."""
        return not self.broken and self.told == self.kept and not self.differing


class Audit:
    """Audits campaigns; writes nothing. Its method raises StoreError when the store does not answer."""

    def __init__(self, scripts: Scripts, events: EventStore, exporter: Exporter) -> None:
        self._scripts = scripts
        self._events = events
        self._exporter = exporter

    async def shards(self, campaign: Campaign) -> AsyncIterator[ShardAudit]:
        """Audit shard by shard."""
        for shard in range(campaign.shards):
            rebuilt = _Rebuilt(campaign, shard, self._events)
            try:
                yield await self._audit(campaign, shard, rebuilt)
            except (DayFilesBroken, LedgerBroken, CursorTooOld, OSError) as error:
                why = str(error) or "events were trimmed that no day file here holds"
                yield ShardAudit(shard, rebuilt.events, None, None, (), 0, why)

    async def _audit(self, campaign: Campaign, shard: int, rebuilt: "_Rebuilt") -> ShardAudit:
        state_key = keys.state_key(campaign.id, shard)
        await self._read_day_files(campaign, shard, rebuilt)
        last, *counters = await self._scripts.run("audit_head", [state_key])
        await rebuilt.go_on_to(EventId.parse(last.decode()))
        told, kept = rebuilt.ledger.counters(), Counters(*counters)
        mismatches: list[Mismatch] = []
        differing = first = 0
        statuses = b""
        # One look behind the last coupon, for records that no event tells of.
        while first <= rebuilt.ledger.issued or any(statuses):
            last, statuses, amounts = await self._scripts.run("audit_records", [state_key], first, COUPONS_PER_CALL)
            await rebuilt.go_on_to(EventId.parse(last.decode()))
            drawn = struct.unpack(f">{len(amounts) // 8}q", amounts)
            for sequence, said, found in rebuilt.ledger.differing(first, statuses, drawn):
                differing += 1
                if differing <= MOST_MISMATCHES:
                    mismatches.append(_mismatch(shard, sequence, said, found))
            first += len(statuses)
        return ShardAudit(shard, rebuilt.events, told, kept, tuple(mismatches), differing)

    async def _read_day_files(self, campaign: Campaign, shard: int, rebuilt: "_Rebuilt") -> None:
        files = self._exporter.day_files(campaign, shard)
        for _attempt in range(LOCK_ATTEMPTS):
            if (await self._exporter.state(campaign, shard)).checkpoint.id == BEGINNING:
                return
            # While the export is at work it may close a file that is being read.
            with files.locked() as mine:
                if mine:
                    rebuilt.take_in(files.read((await self._exporter.state(campaign, shard)).checkpoint))
                    return
            await asyncio.sleep(LOCK_PAUSE_S)
        raise DayFilesBroken("an export is at work and does not end")


class _Rebuilt:
    """A shard's ledger on its way from event to event."""

    def __init__(self, campaign: Campaign, shard: int, store: EventStore) -> None:
        self.ledger = ShardLedger(campaign.benefit.worst_case)
        self.events = 0
        self._place = campaign.id, shard
        self._store = store
        self._last = BEGINNING
        self._ahead: list[Event] = []

    def take_in(self, events: Iterator[Event]) -> None:
        for event in events:
            self._take(event)

    async def go_on_to(self, last: EventId) -> None:
        """Take in the stream's events up to that one, and none that came later."""
        while self._last < last:
            if not self._ahead:
                self._ahead = (await self._store.read_shard(*self._place, self._last))[::-1]
            if not self._ahead or self._ahead[-1].id > last:
                raise LedgerBroken(f"no event leads from {self._last} to {last}")
            self._take(self._ahead.pop())

    def _take(self, event: Event) -> None:
        self.ledger.apply(event)
        self.events += 1
        self._last = event.id


def _mismatch(shard: int, sequence: int, told: Said, recorded: Said) -> Mismatch:
    (said, told_amount), (found, recorded_amount) = told, recorded
    return Mismatch(shard, sequence, _status(said), _status(found), told_amount or None, recorded_amount or None)


def _status(number: int) -> str | None:
    return None if number == NO_COUPON else STATUSES[number - 1].value
