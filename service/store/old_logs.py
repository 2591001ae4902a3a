"""Why: a store that deletes its old log keeps everybody waiting, and for so long that issuance pauses.

While the file system frees the blocks of a large file an fsync waits for it: 0.3 s on ext4 for the log of five million
coupons. So the files of the log are held open here. What the server deletes then keeps its blocks, until they are given
back a few megabytes at a time. What still has a name when the server has deleted it is let go at once: a backup may
have linked it, and NFS and FUSE give a hidden name to it for as long as it is held open.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

LOG: Final = "appendonly.aof"
"""How the names of the log's files begin."""
MOST_HELD: Final = 64
"""A log is a handful of files. Of more than so many the server deletes the rest at once."""
STEP_BYTES: Final = 4 * 1024 * 1024
"""How much of a file is given back at a time: an fsync then waits some milliseconds at most."""


class OldLogs:
    """The files of the log that a server keeps in `folder`, and of those that it has deleted what is still there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[int, tuple[str, int]] = {}

    def give_back_some(self) -> int:
        """Hold what is new, give STEP_BYTES of each deleted file back, and return how many bytes are still to come.

        Call it a few times a second. What cannot be held or cut is deleted at once, as it would be without.
        """
        with suppress(OSError):
            self._look()
        to_come = 0
        for inode, (_, descriptor) in list(self._held.items()):
            facts = os.fstat(descriptor)
            # Only what has lost its last name is nobody's any more.
            if not facts.st_nlink:
                left = max(0, facts.st_size - STEP_BYTES)
                try:
                    os.ftruncate(descriptor, left)
                except OSError:
                    left = 0
                if not left:
                    self._let_go(inode)
                to_come += left
        return to_come

    def release(self) -> None:
        """Give all back at once: nobody waits for the server any more."""
        for inode in list(self._held):
            self._let_go(inode)

    def _look(self) -> None:
        """Let go what has lost the name that it was held by and has another one, and hold what is new."""
        with os.scandir(self._folder) as entries:
            logs = [each for each in entries if each.name.startswith(LOG) and each.is_file(follow_symlinks=False)]
        named = {entry.name: entry.inode() for entry in logs}
        for inode, (name, descriptor) in list(self._held.items()):
            if named.get(name) != inode and os.fstat(descriptor).st_nlink:
                self._let_go(inode)
        for name, inode in named.items():
            if inode not in self._held and len(self._held) < MOST_HELD:
                self._held[inode] = name, os.open(self._folder / name, os.O_WRONLY)

    def _let_go(self, inode: int) -> None:
        os.close(self._held.pop(inode)[1])
