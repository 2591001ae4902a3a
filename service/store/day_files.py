"""Day files: a shard's events as lines of JSON, one file a day (UTC) in the campaign's folder; they outlive the store.

The day that is going on is a plain file that only grows. Its checkpoint, in the store, says up to which byte it was
synced to disk: what lies behind was never vouched for, so it is cut off and written again. When the first event of a
later day comes, the file is compressed under its final name in one step.
"""

import fcntl
import gzip
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Final

from service.domain.events import BEGINNING, Event, EventId, moment

MOST_UNVOUCHED_BYTES: Final = 64 * 1024 * 1024
"""More than one page of events comes to; if more lies behind a checkpoint, the checkpoint is not this file's."""
LONGEST_LINE_BYTES: Final = 16 * 1024 * 1024

_CLOSED: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.(\d+)\.ndjson\.gz")


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
        for day, of_the_day in groupby(events, key=_day_of):
            if checkpoint.day and checkpoint.day != day:
                self._close(checkpoint)
            checkpoint = self._append(checkpoint, day, list(of_the_day))
            yield checkpoint
            self._forget_plain_copies(checkpoint)

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
        except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DayFilesBroken(f"what follows event {last} of shard {self._shard} is damaged: {error}") from error
        except FileNotFoundError as error:
            raise DayFilesBroken(f"{checkpoint.day}.{self._shard}.ndjson of {self._folder.name} is gone") from error
        if last != checkpoint.id:
            raise DayFilesBroken(f"the day files of shard {self._shard} end with {last}, not with {checkpoint.id}")

    def _append(self, checkpoint: Checkpoint, day: str, events: Sequence[Event]) -> Checkpoint:
        with self._open(day, checkpoint.bytes if day == checkpoint.day else 0) as file:
            file.writelines(event.to_json().encode() + b"\n" for event in events)
            _sync(file)
            written = file.tell()
        _sync_folder(self._folder)
        return Checkpoint(events[-1].id, day, written)

    def _open(self, day: str, synced: int) -> BinaryIO:
        """The day's plain file, without what was never vouched for, to be written on at its end."""
        file = os.fdopen(os.open(self._plain(day), os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        size = file.seek(0, os.SEEK_END)
        if not synced <= size <= synced + MOST_UNVOUCHED_BYTES:
            file.close()
            raise DayFilesBroken(
                f"{self._plain(day).name} of {self._folder.name} has {size} bytes where {synced} were written: "
                "let one worker export, or have all of them share the folder"
            )
        file.seek(synced)
        file.truncate()
        return file

    def _close(self, checkpoint: Checkpoint) -> None:
        draft = self._plain(checkpoint.day).with_suffix(".draft")
        with self._open(checkpoint.day, checkpoint.bytes) as plain, draft.open("wb") as file:
            plain.seek(0)
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                shutil.copyfileobj(plain, packed)
            _sync(file)
        draft.replace(self._closed(checkpoint.day))
        _sync_folder(self._folder)

    def _forget_plain_copies(self, checkpoint: Checkpoint) -> None:
        for day in self._closed_days():
            if day != checkpoint.day:
                self._plain(day).unlink(missing_ok=True)

    def _lines(self, checkpoint: Checkpoint) -> Iterator[bytes]:
        for day in self._closed_days():
            if day < checkpoint.day:
                with gzip.open(self._closed(day), "rb") as packed:
                    yield from iter(partial(packed.readline, LONGEST_LINE_BYTES), b"")
        if checkpoint.day:
            with self._plain(checkpoint.day).open("rb") as plain:
                while plain.tell() < checkpoint.bytes and (line := plain.readline(LONGEST_LINE_BYTES)):
                    yield line

    def _closed_days(self) -> list[str]:
        names = [found for path in self._folder.glob("*.gz") if (found := _CLOSED.fullmatch(path.name))]
        return sorted(found[1] for found in names if int(found[2]) == self._shard)

    def _plain(self, day: str) -> Path:
        return self._folder / f"{day}.{self._shard}.ndjson"

    def _closed(self, day: str) -> Path:
        return self._folder / f"{day}.{self._shard}.ndjson.gz"


def _day_of(event: Event) -> str:
    return moment(event.id.at_ms)[:10]


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
