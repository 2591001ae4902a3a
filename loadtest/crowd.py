"""Why: the customers' process is somebody to talk to: it is told once what to do and listened to until it is done."""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from loadtest.messages import Answer
from service.cli.failures import CommandError, ExitCode

BEGIN_TIMEOUT_S: Final = 60.0
END_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.02


class Crowd:
    """The customers at work, by the instructions in one line of JSON; they are gone when the block ends."""

    def __init__(self, instructions: str) -> None:
        self._instructions = instructions
        self._begun_at: float | None = None
        self._lines: list[str] = []
        self._left: int | None = None

    def __enter__(self) -> Self:
        """Start them and wait until they begin. Raises CommandError if they do not."""
        self._errors = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            (sys.executable, "-m", "loadtest.customers"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self._instructions + "\n")
        self._process.stdin.close()
        self._listener = threading.Thread(target=self._listen, args=(self._process.stdout,), daemon=True)
        self._listener.start()
        deadline_s = time.monotonic() + BEGIN_TIMEOUT_S
        while self._begun_at is None:
            if not self.is_busy() or time.monotonic() > deadline_s:
                self._leave()
                raise CommandError(f"the customers did not come: {self._last_words()}", ExitCode.REFUSED)
            time.sleep(POLL_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def is_busy(self) -> bool:
        """Whether customers still want something."""
        return self._listener.is_alive()

    def now_s(self) -> float:
        """Seconds since they began."""
        assert self._begun_at is not None
        return time.monotonic() - self._begun_at

    def answers(self) -> list[Answer]:
        """What they were told so far."""
        return [Answer.from_line(line) for line in tuple(self._lines)]

    def finish(self) -> int:
        """Wait for their end and return how many errands were left. Raises CommandError if they broke off."""
        self._listener.join(END_TIMEOUT_S)
        if self._left is None:
            raise CommandError(f"the customers broke off: {self._last_words()}", ExitCode.REFUSED)
        return self._left

    def _listen(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                if line.startswith("["):
                    self._lines.append(line)
                else:
                    said = json.loads(line)
                    self._begun_at = said.get("begun_at", self._begun_at)
                    self._left = said.get("left", self._left)

    def _leave(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _last_words(self) -> str:
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()
        return words[-1] if words else "they said nothing"
