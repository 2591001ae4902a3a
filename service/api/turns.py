"""Why: an event loop reads all that has arrived before it does anything else, so a burst of requests for coupons would
keep redemptions waiting, on their way in and on their way out.

So a turn of the loop begins a bounded number of requests; the others are read, and begun in the next turns, in order.
"""

import asyncio
from collections import deque
from typing import Final, Protocol

MOST_A_TURN: Final = 64
"""Half a millisecond or so of requests. Fewer would make small batches of what comes together."""


class Reader(Protocol):
    """A connection that has read what it has not begun."""

    def read_on(self) -> None:
        """Begin it: its turn has come."""


class Turns:
    """Whose turn it is among the connections of one event loop."""

    def __init__(self) -> None:
        self._left = MOST_A_TURN
        self._waiting: deque[Reader] = deque()
        self._ends_soon = False

    def admits(self, reader: Reader) -> bool:
        """Whether the reader may begin a request at once; if not, it is asked to read on in one of the next turns."""
        if not self._ends_soon:
            self._end_soon()
        if not self._left:
            self._waiting.append(reader)
            return False
        self._left -= 1
        return True

    def _end_soon(self) -> None:
        self._ends_soon = True
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._ends_soon = False
        self._left = MOST_A_TURN
        while self._waiting and self._left:
            self._left -= 1
            self._waiting.popleft().read_on()
        if self._waiting:
            self._end_soon()
