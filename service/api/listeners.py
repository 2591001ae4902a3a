"""Why: whoever follows events keeps a connection for hours, so there are only so many, and they end with the service.

A server that stops waits for the answers that it has begun; these would never end by themselves.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

MAX_LISTENERS: Final = 32
"""How many may follow events at the same time, in one process."""


class Listeners:
    """Counts the listeners, and knows when they have to go."""

    def __init__(self) -> None:
        self.stopping = False
        self._listening = 0

    @contextmanager
    def one_more(self) -> Iterator[bool]:
        """Whether there is room for one more, for as long as the block lasts."""
        if self._listening >= MAX_LISTENERS:
            yield False
            return
        self._listening += 1
        try:
            yield True
        finally:
            self._listening -= 1

    @contextmanager
    def leaving_on_signals(self) -> Iterator[None]:
        """Let them go when the process is told to end, before whoever else wants to hear of it."""
        replaced = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def stop(number: int, frame: FrameType | None) -> None:
            self.stopping = True
            handler = replaced[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)

        for number, handler in replaced.items():
            if callable(handler):
                signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in replaced.items():
                signal.signal(number, handler)
