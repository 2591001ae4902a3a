"""Day files: a shard's events as lines of JSON, one file a day (UTC) in the campaign's folder; they outlive the store.

A file grows by whole gzip members, so it never has to be compressed at a stroke. Its checkpoint, in the store, says up
to which byte it was synced to disk: what a crash has left behind it was never vouched for, so it is cut off and written
again. Other events there stay: they may be all that is left of what the store has lost.
"""

import fcntl
import gzip
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Final

from service.domain.events import BEGINNING, Event, EventId, moment

MOST_UNVOUCHED_BYTES: Final = 16 * 1024 * 1024
"""More than one page of events comes to; if more lies behind a checkpoint, the checkpoint is not this file's."""
LONGEST_LINE_BYTES: Final = 16 * 1024 * 1024

_NAME: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.(\d+)\.ndjson\.gz")


class DayFilesBroken(Exception):
    """The day files are not those that the checkpoint speaks of; nothing may be trimmed before that is cleared up."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The last event on disk, the day of the file that is open, and how many of its bytes were synced."""

    id: EventId = BEGINNING
    day: str = ""
    bytes: int = 0


class DayFiles:
    """One shard's day files. Methods raise OSError where the folder cannot be used."""

    def __init__(self, directory: Path, campaign_id: str, shard: int) -> None:
        self._folder = directory / campaign_id
        self._shard = shard

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Whether this process alone may write the campaign's files for as long as the block lasts."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self._folder / "lock").open("wb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def append(self, checkpoint: Checkpoint, events: Sequence[Event]) -> Iterator[Checkpoint]:
        """Write the events behind the checkpoint; each checkpoint that is yielded is on disk. Raises DayFilesBroken."""
        self._refuse_strangers(checkpoint, events)
        for day, grouped in groupby(events, key=_day_of):
            checkpoint = self._append(checkpoint, day, list(grouped))
            yield checkpoint

    def read(self, checkpoint: Checkpoint) -> Iterator[Event]:
        """Every exported event, in order. Raises DayFilesBroken where files lack, or are not what was written."""
        last = BEGINNING
        try:
            for line in self._lines(checkpoint):
                event = Event.from_json(self._shard, line)
                if event.id <= last:
                    raise DayFilesBroken(f"event {event.id} of shard {self._shard} stands behind {last}")
                last = event.id
                yield event
                if last == checkpoint.id:
                    return
        except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DayFilesBroken(f"what follows event {last} of shard {self._shard} is damaged: {error}") from error
        if last != checkpoint.id:
            raise DayFilesBroken(f"the day files of shard {self._shard} end with {last}, not with {checkpoint.id}")

    def _append(self, checkpoint: Checkpoint, day: str, events: Sequence[Event]) -> Checkpoint:
        with self._open(day, checkpoint.bytes if day == checkpoint.day else 0) as file:
            lines = b"".join([event.to_json().encode() + b"\n" for event in events])
            file.write(gzip.compress(lines, mtime=0))
            file.flush()
            os.fsync(file.fileno())
            written = file.tell()
        _sync_folder(self._folder)
        return Checkpoint(events[-1].id, day, written)

    def _open(self, day: str, synced: int) -> BinaryIO:
        """The day's file, without what was never vouched for, to be written on at its end."""
        file = os.fdopen(os.open(self._path(day), os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        size = file.seek(0, os.SEEK_END)
        if not synced <= size <= synced + MOST_UNVOUCHED_BYTES:
            file.close()
            raise DayFilesBroken(
                f"{self._path(day).name} of {self._folder.name} has {size} bytes where {synced} were written: "
                "let one worker export, or have all of them share the folder"
            )
        file.seek(synced)
        file.truncate()
        return file

    def _refuse_strangers(self, checkpoint: Checkpoint, events: Sequence[Event]) -> None:
        """A crash leaves a beginning of the next events; others are another store's, or lost to this one."""
        following = (event.id for event in events)
        for day in self._days():
            if day < checkpoint.day:
                continue
            synced = checkpoint.bytes if day == checkpoint.day else 0
            for found in self._ids_behind(day, synced):
                if found != next(following, None):
                    raise DayFilesBroken(
                        f"{self._path(day).name} of {self._folder.name} has event {found} behind byte {synced}, where "
                        "this store has another or none: if it has lost its last writes, keep a copy of the file and "
                        "cut it there; if the files are another store's, move the campaign's folder away"
                    )

    def _ids_behind(self, day: str, synced: int) -> Iterator[EventId]:
        """The events behind that byte, as far as a crash has left them whole."""
        with suppress(ValueError, EOFError, gzip.BadGzipFile, zlib.error):
            for line in self._lines_of(day, synced):
                yield Event.from_json(self._shard, line).id

    def _lines(self, checkpoint: Checkpoint) -> Iterator[bytes]:
        for day in self._days():
            if day <= checkpoint.day:
                yield from self._lines_of(day)

    def _lines_of(self, day: str, behind: int = 0) -> Iterator[bytes]:
        with self._path(day).open("rb") as file, gzip.open(file) as lines:
            file.seek(behind)
            yield from iter(partial(lines.readline, LONGEST_LINE_BYTES), b"")

    def _days(self) -> list[str]:
        found = [_NAME.fullmatch(path.name) for path in self._folder.glob("*.gz")]
        return sorted(name[1] for name in found if name and int(name[2]) == self._shard)

    def _path(self, day: str) -> Path:
        return self._folder / f"{day}.{self._shard}.ndjson.gz"


def _day_of(event: Event) -> str:
    return moment(event.id.at_ms)[:10]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
