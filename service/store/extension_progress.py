"""How far an extension is: read from each shard, and summed over them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Self

import msgpack

from service.domain.campaign import Campaign
from service.domain.extension import LOCAL, Scope
from service.store.scope import unpack_scope


class ExtensionStatus(StrEnum):
    """How far the write-through of an extension or of its undoing is; each holds from the start."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    UNDOING = "undoing"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class UndoProgress:
    """The undoing of an extension: of `total` coupons it may concern, `done` were looked at, `shortened` expire sooner.

    `made` extensions had been made by then.
    """

    at_ms: int
    made: int
    reason: str
    actor: str
    total: int
    done: int
    shortened: int


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """An extension in one shard, as it stands there. `terms` and `scope` are packed, for the other shards."""

    made_at_ms: int
    total: int
    done: int
    changed: int
    revived: int
    refused: int
    terms: bytes
    scope: bytes
    failure: str
    undo: UndoProgress | None

    @classmethod
    def read(cls, fields: Mapping[bytes, bytes]) -> Self:
        """From the hash that the scripts keep; extensions of older versions say less."""
        undo = None
        if b"undone_at" in fields:
            undo = UndoProgress(
                at_ms=int(fields[b"undone_at"]),
                made=int(fields[b"undone_made"]),
                reason=fields[b"undo_reason"].decode(),
                actor=fields[b"undone_by"].decode(),
                total=int(fields[b"undo_total"]),
                done=int(fields[b"undo_done"]),
                shortened=int(fields[b"shortened"]),
            )
        made_at_ms, total, done, changed, revived, refused = (
            int(fields.get(name, 0)) for name in (b"made_at", b"total", b"done", b"changed", b"revived", b"refused")
        )
        terms = fields[b"terms"] if b"terms" in fields else _older_terms(fields)
        failure = fields.get(b"failure", b"").decode()
        scope = fields.get(b"scope", b"")
        return cls(made_at_ms, total, done, changed, revived, refused, terms, scope, failure, undo)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionProgress:
    """An extension and how many of the `total` coupons that there were have been looked at and `changed`.

    It lifts to `until_ms` or, for lost time, by `added_ms`. Of the coupons that were written as expired, `revived` came
    back; `refused` ones come back when somebody wants to use them, if the budget covers them by then.
    """

    campaign_id: str
    number: int
    made_at_ms: int
    until_ms: int | None
    added_ms: int | None
    include_expired: bool
    scope: Scope | None
    total: int
    done: int
    changed: int
    revived: int
    refused: int
    reason: str
    actor: str
    failure: str
    undo: UndoProgress | None

    @property
    def is_written(self) -> bool:
        """Whether the extension itself is written through."""
        return self.done >= self.total

    @property
    def undo_is_written(self) -> bool:
        """Whether there is an undoing, and it is written through."""
        return self.undo is not None and self.undo.done >= self.undo.total

    @property
    def status(self) -> ExtensionStatus:
        """Follows from the figures; a failure stands until work goes on."""
        if self.undo_is_written and self.is_written:
            return ExtensionStatus.UNDONE
        if self.undo is None and self.is_written:
            return ExtensionStatus.COMPLETED
        if self.failure:
            return ExtensionStatus.FAILED
        if self.undo is not None:
            return ExtensionStatus.UNDOING
        return ExtensionStatus.RUNNING if self.done else ExtensionStatus.PENDING


def progress_of(campaign: Campaign, number: int, shards: Sequence[ShardProgress]) -> ExtensionProgress:
    """The extension over all shards; the first one leads."""
    led = shards[0]
    terms: dict[str, Any] = msgpack.unpackb(led.terms)
    return ExtensionProgress(
        campaign_id=campaign.id,
        number=number,
        made_at_ms=led.made_at_ms,
        until_ms=terms.get("until_ms"),
        added_ms=terms.get("by_ms"),
        include_expired=terms.get("include_expired", False),
        scope=unpack_scope(led.scope),
        total=sum(shard.total for shard in shards),
        done=sum(shard.done for shard in shards),
        changed=sum(shard.changed for shard in shards),
        revived=sum(shard.revived for shard in shards),
        refused=sum(shard.refused for shard in shards),
        reason=terms["reason"],
        actor=terms.get("actor", LOCAL),
        failure=led.failure,
        undo=_summed([shard.undo for shard in shards if shard.undo is not None]),
    )


def _summed(undos: Sequence[UndoProgress]) -> UndoProgress | None:
    if not undos:
        return None
    return replace(
        undos[0],
        total=sum(undo.total for undo in undos),
        done=sum(undo.done for undo in undos),
        shortened=sum(undo.shortened for undo in undos),
    )


def _older_terms(fields: Mapping[bytes, bytes]) -> bytes:
    packed: bytes = msgpack.packb({"until_ms": int(fields[b"until"]), "reason": fields[b"reason"].decode()})
    return packed
