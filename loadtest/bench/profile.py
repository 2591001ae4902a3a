"""Why: where the API's time goes is sampled, not guessed; py-spy does it from outside, if it is there."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from loadtest.bench.processes import pinned
from service.cli.failures import CommandError, ExitCode

SAMPLES_A_SECOND: Final = 250
END_TIMEOUT_S: Final = 30.0
MOST_LINES: Final = 15
_LINE_NUMBER: Final = re.compile(r":\d+\)$")


@contextmanager
def profiled(pid: int, seconds: int, core: int) -> Iterator[dict[str, float]]:
    """Sample a process for that long; after the block the mapping holds each function's own share of the time.

    Raises CommandError.
    """
    spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is None:
        raise CommandError("py-spy is not installed: pip install py-spy", ExitCode.REFUSED)
    shares: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="tidegate-profile-") as folder:
        stacks = Path(folder) / "stacks"
        command = (
            *(spy, "record", "--pid", str(pid), "--duration", str(seconds), "--rate", str(SAMPLES_A_SECOND)),
            *("--format", "raw", "--nonblocking", "--output", str(stacks)),
        )
        with pinned(core):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        with process:
            try:
                yield shares
                errors = process.communicate(timeout=seconds + END_TIMEOUT_S)[1]
            finally:
                if process.poll() is None:
                    process.kill()
        if process.returncode:
            raise CommandError(f"py-spy: {errors.strip()}", ExitCode.REFUSED)
        shares.update(own_shares(stacks.read_text().splitlines()))


def own_shares(stacks: Iterable[str]) -> dict[str, float]:
    """Each function's own share of the samples, the largest first; a line is a stack and how often it was seen."""
    seen: Counter[str] = Counter()
    for line in stacks:
        stack, _, times = line.rpartition(" ")
        seen[_LINE_NUMBER.sub(")", stack.rpartition(";")[2])] += int(times)
    total = seen.total()
    return {function: count / total for function, count in seen.most_common(MOST_LINES)}
