"""Script calls that follow each other on one connection: for issue and redeem, where a call carries a whole batch.

redis-py's client takes a connection out of a pool for each call and looks at it several times over; for a small batch
that is a third of all the API's work. So it opens and closes the connection, and what happens in between is here.
"""

import asyncio
from collections import deque
from typing import Any, Final

import hiredis
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from service.store.scripts import STORE_CLOCK, Scripts, StoreRefused, StoreTimeout, StoreUnreachable, load, store_errors

NO_SCRIPT: Final = "NOSCRIPT"


def pipelined(client: Redis, timeout_ms: int, clock: str = STORE_CLOCK) -> Scripts:
    """Scripts for the calls that carry batches; a Cluster has a server for each key and no single connection."""
    if isinstance(client, RedisCluster):
        return Scripts(client, clock)
    return PipelinedScripts(client, timeout_ms, clock)


class PipelinedScripts(Scripts):
    """Runs scripts on one connection of the client's, which is opened at the first call and after each failure."""

    def __init__(self, client: Redis, timeout_ms: int, clock: str = STORE_CLOCK) -> None:
        super().__init__(client, clock)
        self._timeout_s = timeout_ms / 1000
        self._connection: Any = None
        self._pipe: _Pipe | None = None
        self._opening = asyncio.Lock()

    async def run(self, name: str, keys: list[str], *args: str | bytes | int) -> Any:
        """Run a script once and return its reply. Never repeats a script that may have run.

        Raises StoreUnreachable, StoreTimeout or StoreRefused.
        """
        pipe = self._pipe
        if pipe is None or pipe.is_broken:
            pipe = await self._open()
        script = load(name, self._clock)
        reply = await pipe.call("EVALSHA", script.sha, len(keys), *keys, *args)
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith(NO_SCRIPT):
            reply = await pipe.call("EVAL", script.source, len(keys), *keys, *args)
        if isinstance(reply, hiredis.ReplyError):
            raise StoreRefused(str(reply))
        return reply

    async def _open(self) -> "_Pipe":
        async with self._opening:
            if self._pipe is None or self._pipe.is_broken:
                with store_errors():
                    if self._connection is None:
                        pool: Any = self._client.connection_pool
                        self._connection = await pool.get_connection()
                    else:
                        await self._connection.disconnect(nowait=True)
                        await self._connection.connect()
                self._pipe = _Pipe(self._connection, self._timeout_s)
            return self._pipe


class _Pipe(asyncio.Protocol):
    """One connection, whose replies come in the order of the calls."""

    def __init__(self, connection: Any, timeout_s: float) -> None:
        self.is_broken = False
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._replies = hiredis.Reader()
        self._calls: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        # redis-py has shaken hands, with TLS, a password or a Sentinel where need be; from here on it only closes.
        self._transport: asyncio.Transport = connection._writer.transport
        self._former: Any = self._transport.get_protocol()
        self._transport.set_protocol(self)

    def call(self, *words: str | bytes | int) -> asyncio.Future[Any]:
        """Send a command; its reply follows, or StoreTimeout or StoreUnreachable."""
        reply: asyncio.Future[Any] = self._loop.create_future()
        self._calls.append((reply, self._loop.time() + self._timeout_s))
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_s, self._look)
        self._transport.write(hiredis.pack_command(words))  # type: ignore[arg-type]  # hiredis' stub forgets the dots
        return reply

    def data_received(self, data: bytes) -> None:
        """Hand out the replies."""
        self._replies.feed(data)
        while self._calls and (found := self._replies.gets()) is not False:
            reply, _ = self._calls.popleft()
            if not reply.done():
                reply.set_result(found)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever was asked is lost."""
        self._break(StoreUnreachable("the connection was lost"))
        self._former.connection_lost(exc)

    def _look(self) -> None:
        """Give up if the call that has waited longest has waited too long. A timer for each would cost more than it."""
        self._watch = None
        if not self._calls:
            return
        left_s = self._calls[0][1] - self._loop.time()
        if left_s > 0:
            self._watch = self._loop.call_later(left_s, self._look)
        else:
            self._break(StoreTimeout("no answer"))

    def _break(self, error: Exception) -> None:
        self.is_broken = True
        self._transport.abort()
        if self._watch is not None:
            self._watch.cancel()
        while self._calls:
            reply, _ = self._calls.popleft()
            if not reply.done():
                reply.set_exception(error)
