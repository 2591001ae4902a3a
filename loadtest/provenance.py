"""Why: a figure without the machine, the commit and the hour behind it is an anecdote."""

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

TOOL_TIMEOUT_S: Final = 5.0


def processor() -> str:
    """The processor's name and the number of its cores."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(models, '') or platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def commit() -> str:
    """The commit that is measured, `-dirty` with changes on top."""
    return first_words(("git", "describe", "--always", "--dirty", "--abbrev=12"), 1)


def now() -> str:
    """The hour, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def first_words(command: Sequence[str], words: int) -> str:
    """The first words that a tool says, wherever it says them."""
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S
        )
    except (OSError, subprocess.SubprocessError):
        return f"no {command[0]}"
    return " ".join((done.stdout + done.stderr).split()[:words]) or "unknown"
