"""Why: what all API processes of one machine hear alike must be counted by one of them, where a scrape adds them up."""

import fcntl
import os
from pathlib import Path
from typing import Final

SHARED_METRICS: Final = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder in which the processes keep what they count; one process alone needs none."""


class Leadership:
    """It falls to the first process that asks for it, and is free again when that ends, however it does."""

    def __init__(self) -> None:
        folder = os.environ.get(SHARED_METRICS)
        self._lock = None if folder is None else os.open(Path(folder) / "leader", os.O_WRONLY | os.O_CREAT, 0o600)

    def is_ours(self) -> bool:
        """Whether this process leads."""
        if self._lock is None:
            return True
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
