"""Why: a listener's answer never ends by itself, and a server that is told to stop first waits for all answers to end.

uvicorn tells its application to stop only after that, so the word is heard where uvicorn hears it: as a signal.
"""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any, Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def heard_when_stopping(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` in the running loop when the process is told to stop, before whoever else listens to that."""
    if current_thread() is not main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    others: dict[int, Any] = {}

    def hear(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(stop)
        if callable(others[number]):
            others[number](number, frame)
        else:
            signal.signal(number, others[number])
            signal.raise_signal(number)

    for wanted in STOP_SIGNALS:
        others[wanted] = signal.signal(wanted, hear)
    try:
        yield
    finally:
        for wanted in STOP_SIGNALS:
            signal.signal(wanted, others[wanted])
