"""Why: people come at their own time, whether those before them are answered or not, and some come back when told to.

`python -m loadtest.overload.visitors` reads a task, one line of JSON, and writes an answer a line at its end. Asked to
stop, it ends early. Moments are met to the millisecond.
"""

import asyncio
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from pathlib import Path
from typing import Final

import httptools
import uvloop

from loadtest.overload.answers import NO_ANSWER, Answer, Task

TICK_S: Final = 0.001
SENT_AWAY: Final = (429, 503)
LAST_ANSWERS_S: Final = 2.0
"""How long whoever has been asked may take to answer those who leave."""


class _Connection(asyncio.Protocol):
    """One kept connection, on which one request at a time is under way."""

    def __init__(
        self, port: int, told: Callable[["_Connection", int], None], lost: Callable[["_Connection"], None]
    ) -> None:
        self.port = port
        self._told = told
        self._lost = lost
        self._parser = httptools.HttpResponseParser(self)
        self.visitor = -1
        self.asked_s = 0.0
        self.retry_after_s = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvloop's is like it
        """Keep the transport."""
        self.transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell that nothing more will be heard here."""
        self._lost(self)

    def ask(self, visitor: int, request: bytes) -> None:
        """Send a visitor's request."""
        self.visitor, self.asked_s, self.retry_after_s = visitor, time.monotonic(), 0
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note when to come back."""
        if name.lower() == b"retry-after":
            self.retry_after_s = int(value)

    def on_message_complete(self) -> None:
        """Tell of a whole answer."""
        self._told(self, self._parser.get_status_code())


class Visitors:
    """Everybody of a task, over connections that are opened when the visit begins."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._codes = Path(task.name).read_text().split() if task.verb == "redeem" else []
        self._free: deque[_Connection] = deque()
        self._busy: set[_Connection] = set()
        self._again: list[tuple[float, int]] = []
        self._stopped = False
        self.answers: list[Answer] = []

    async def visit(self) -> None:
        """Come, ask, and perhaps come back, until everybody is through or it is time to leave."""
        task, loop = self._task, asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        for number in range(task.connections):
            port = task.ports[number % len(task.ports)]
            await loop.create_connection(partial(self._join, port), "127.0.0.1", port)
        began_s, came = time.monotonic(), 0
        due: deque[int] = deque()
        while not self._stopped and (came < task.visitors or due or self._again or self._busy):
            now_s = time.monotonic() - began_s
            if now_s > task.leave_after_s:
                break
            by_now = min(task.visitors, int(now_s * task.per_second))
            due.extend(range(came, by_now))
            came = by_now
            while self._again and self._again[0][0] <= now_s + began_s:
                due.append(heappop(self._again)[1])
            while due and self._free:
                connection = self._free.popleft()
                self._busy.add(connection)
                visitor = due.popleft()
                connection.ask(visitor, self._request(visitor))
            await asyncio.sleep(TICK_S)
        if self._busy:
            await asyncio.sleep(LAST_ANSWERS_S)
        for connection in self._busy:
            self._note(connection, NO_ANSWER)

    def _stop(self) -> None:
        self._stopped = True

    def _join(self, port: int) -> _Connection:
        connection = _Connection(port, self._told, self._lose)
        self._free.append(connection)
        return connection

    def _told(self, connection: _Connection, status: int) -> None:
        self._note(connection, status)
        if self._task.patient and status in SENT_AWAY and connection.retry_after_s:
            heappush(self._again, (time.monotonic() + connection.retry_after_s, connection.visitor))
        self._busy.discard(connection)
        self._free.append(connection)

    def _lose(self, connection: _Connection) -> None:
        if connection in self._busy:
            self._note(connection, NO_ANSWER)
            self._busy.discard(connection)
        elif connection in self._free:
            self._free.remove(connection)

    def _note(self, connection: _Connection, status: int) -> None:
        answer = Answer(
            connection.visitor,
            connection.port,
            connection.asked_s,
            time.monotonic(),
            status,
            connection.retry_after_s,
        )
        self.answers.append(answer)

    def _request(self, visitor: int) -> bytes:
        task = self._task
        if task.verb == "issue":
            path, user = f"/v1/campaigns/{task.name}/coupons", task.first + visitor
            body, key = b'{"user_id":"%08d"}' % user, b"Idempotency-Key: key-%08d\r\n" % user
        else:
            path, key = f"/v1/coupons/{self._codes[task.first + visitor]}/redemptions", b""
            body = b'{"merchant_id":"merchant-%d","order_id":"%b-%d"}' % (visitor % 1000, task.order.encode(), visitor)
        return b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\n%bContent-Length: %d\r\n\r\n%b" % (
            path.encode(),
            key,
            len(body),
            body,
        )


def main() -> None:
    """Visit, and tell what everybody was told."""
    visitors = Visitors(Task.from_line(sys.stdin.readline()))
    uvloop.run(visitors.visit())
    sys.stdout.writelines(json.dumps(answer) + "\n" for answer in visitors.answers)


if __name__ == "__main__":
    main()
