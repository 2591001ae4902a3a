"""Why: a store that deletes its old log keeps everybody waiting, and for so long that issuance pauses.

While the file system frees the blocks of a large file an fsync waits for it: 0.3 s on ext4 for the log of five million
coupons. So the files of the log are held open here. What the server deletes then keeps its blocks, until they are given
back a few megabytes at a time.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

MOST_HELD: Final = 64
"""A log is a handful of files. Of more than so many the server deletes the rest at once."""
STEP_BYTES: Final = 4 * 1024 * 1024
"""How much of a file is given back at a time: an fsync then waits some milliseconds at most."""


class OldLogs:
    """The files of the log that a server keeps in `folder`, and of those that it has deleted what is still there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[int, int] = {}

    def give_back_some(self) -> int:
        """Hold what is new, give STEP_BYTES of each deleted file back, and return how many bytes are still to come.

        Call it a few times a second. What cannot be held or cut is deleted at once, as it would be without.
        """
        with suppress(OSError):
            self._hold_new()
        to_come = 0
        for inode, descriptor in list(self._held.items()):
            facts = os.fstat(descriptor)
            # Only what has lost its last name is nobody's any more.
            if not facts.st_nlink:
                left = max(0, facts.st_size - STEP_BYTES)
                try:
                    os.ftruncate(descriptor, left)
                except OSError:
                    left = 0
                if not left:
                    os.close(self._held.pop(inode))
                to_come += left
        return to_come

    def release(self) -> None:
        """Give all back at once: nobody waits for the server any more."""
        while self._held:
            os.close(self._held.popitem()[1])

    def _hold_new(self) -> None:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                is_new = entry.is_file(follow_symlinks=False) and entry.inode() not in self._held
                if is_new and len(self._held) < MOST_HELD:
                    self._held[entry.inode()] = os.open(entry.path, os.O_WRONLY)
