"""Why: whoever calls `tidegate`, person or program, learns in one line and one number what went wrong."""

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What `tidegate` ends with."""

    DONE = 0
    REFUSED = 1
    BAD_INPUT = 2
    UNREACHABLE = 3


class CommandError(Exception):
    """A command cannot do what it was asked; the message is for a person, `problem` for a program."""

    def __init__(self, message: str, exit_code: ExitCode, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.problem = problem or {"type": "about:blank", "title": exit_code.name.lower(), "detail": message}
