"""Why: visitors come while the rehearsal does something else to the service; this is the other end of their process."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from loadtest.bench.processes import pinned
from loadtest.overload.answers import Answer, Task
from service.cli.failures import CommandError, ExitCode

LEAVE_TIMEOUT_S: Final = 30.0


class Stream:
    """Visitors on their way."""

    def __init__(self, process: subprocess.Popen[str], said: Path) -> None:
        self._process = process
        self._said = said

    def is_busy(self) -> bool:
        """Whether somebody still wants something."""
        return self._process.poll() is None

    def send_away(self) -> None:
        """Have nobody else come."""
        self._process.terminate()

    def answers(self, within_s: float = LEAVE_TIMEOUT_S) -> list[Answer]:
        """Wait until everybody is through and return what they were told, by when they asked. Raises CommandError."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired as error:
            raise CommandError("the visitors did not leave", ExitCode.REFUSED) from error
        if self._process.returncode:
            words = self._said.read_text(errors="replace").strip().splitlines() or ["they said nothing"]
            raise CommandError(f"the visitors broke off: {words[-1]}", ExitCode.REFUSED)
        told = [Answer(*json.loads(line)) for line in self._said.read_text().splitlines()]
        return sorted(told, key=lambda answer: answer.asked_s)


@contextmanager
def coming(task: Task, core: int) -> Iterator[Stream]:
    """Visitors on one core, gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="tidegate-visitors-") as folder:
        said = Path(folder) / "said"
        with said.open("w") as output, pinned(core):
            process = subprocess.Popen(
                (sys.executable, "-m", "loadtest.overload.visitors"),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                text=True,
                cwd=Path(__file__).parents[2],
                process_group=0,
            )
        with process:
            assert process.stdin is not None
            process.stdin.write(task.to_line() + "\n")
            process.stdin.close()
            try:
                yield Stream(process, said)
            finally:
                if process.poll() is None:
                    process.kill()


def visit(task: Task, core: int) -> list[Answer]:
    """Let everybody come and go. Raises CommandError."""
    with coming(task, core) as stream:
        return stream.answers(task.leave_after_s + LEAVE_TIMEOUT_S)
