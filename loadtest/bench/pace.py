"""Why: wrk asks as soon as it is answered; how long people wait is told by people who come at their own time.

Every request has its moment, whether those before it are answered or not, and its time counts from that moment: a
service that stalls is charged for everybody who came meanwhile. Moments are met to the millisecond.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import httptools
import uvloop

from loadtest.bench.tally import Answers

TICK_S: Final = 0.001
END_TIMEOUT_S: Final = 10.0
FIRST_REFUSAL: Final = 400


class _Connection(asyncio.Protocol):
    """One kept connection, on which one request at a time is under way."""

    def __init__(self, answered: Callable[["_Connection", int], None]) -> None:
        self._answered = answered
        self._parser = httptools.HttpResponseParser(self)
        self.due_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvloop's is like it
        """Keep the transport."""
        self.transport = transport

    def ask(self, request: bytes, due_s: float) -> None:
        """Send a request that was due at `due_s`."""
        self.due_s = due_s
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Tell of a whole answer."""
        self._answered(self, self._parser.get_status_code())


class _Walk:
    """`count` requests, `per_second` of them, over connections that `join`."""

    def __init__(self, requests: Iterator[bytes], count: int, per_second: float) -> None:
        self._requests = requests
        self._count = count
        self._per_second = per_second
        self._free: deque[_Connection] = deque()
        self._due: deque[float] = deque()
        self._loop = asyncio.get_running_loop()
        self.times_s: list[float] = []
        self.late_s: list[float] = []
        self.refused = 0

    async def join(self, port: int) -> None:
        """Open one more connection."""
        _, connection = await self._loop.create_connection(lambda: _Connection(self._answered), "127.0.0.1", port)
        self._free.append(connection)

    async def run(self) -> None:
        """Ask until everything is asked and answered, or END_TIMEOUT_S late."""
        began_s, fell_due = self._loop.time(), 0
        deadline_s = began_s + self._count / self._per_second + END_TIMEOUT_S
        while len(self.times_s) < self._count and self._loop.time() < deadline_s:
            by_now = min(self._count, int((self._loop.time() - began_s) * self._per_second))
            self._due.extend(began_s + number / self._per_second for number in range(fell_due, by_now))
            fell_due = by_now
            while self._due and self._free:
                self._free.popleft().ask(next(self._requests), self._due.popleft())
            wakes_s = self._loop.time() + TICK_S
            await asyncio.sleep(TICK_S)
            self.late_s.append(max(0.0, self._loop.time() - wakes_s))

    def leave(self) -> None:
        """Close what is free; what is not closes with the event loop."""
        for connection in self._free:
            connection.transport.abort()

    def _answered(self, connection: _Connection, status: int) -> None:
        self.times_s.append(self._loop.time() - connection.due_s)
        self.refused += status >= FIRST_REFUSAL
        if self._due:
            connection.ask(next(self._requests), self._due.popleft())
        else:
            self._free.append(connection)


@dataclass(frozen=True, slots=True)
class Walked:
    """What was answered, the sorted times to an answer, and how late the people woke at each tick, sorted."""

    answers: Answers
    times_ms: list[float]
    late_ms: list[float]


def ask_at_pace(port: int, requests: Iterator[bytes], connections: int, per_second: float, seconds: float) -> Walked:
    """Send requests at a fixed pace for that long."""
    return uvloop.run(_walk(port, requests, connections, per_second, round(per_second * seconds)))


async def _walk(port: int, requests: Iterator[bytes], connections: int, per_second: float, count: int) -> Walked:
    walk = _Walk(requests, count, per_second)
    for _ in range(connections):
        await walk.join(port)
    try:
        await walk.run()
    finally:
        walk.leave()
    answered = len(walk.times_s)
    answers = Answers(answered, walk.refused, count - answered)
    return Walked(answers, _sorted_ms(walk.times_s), _sorted_ms(walk.late_s))


def _sorted_ms(times_s: list[float]) -> list[float]:
    return sorted(time_s * 1000 for time_s in times_s)
