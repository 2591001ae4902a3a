"""Why: httpx needs many times the server's own time for a request, so a crowd of its clients would never be one."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

CLIENTS: Final = 200
PATIENCE_S: Final = 30.0
PAUSE_S: Final = 0.1

Wish = tuple[str, str]
"""A user and his idempotency key."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What one client got; `refusals` is how often he was sent away with a 503 before."""

    status: int
    head: bytes
    body: bytes
    refusals: int = 0

    @property
    def json(self) -> dict[str, Any]:
        """The body."""
        decoded: dict[str, Any] = json.loads(self.body)
        return decoded

    @property
    def is_replay(self) -> bool:
        """Whether it is an earlier request's answer."""
        return b"idempotency-replayed: true" in self.head

    @property
    def process(self) -> bytes:
        """A mark of the process that answered."""
        return self.head.partition(b"x-request-id: ")[2].partition(b"-")[0]


class Client:
    """One client on one connection that stays open."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def post(self, path: str, body: dict[str, Any], key: str = "") -> Reply:
        """Send one request and read its whole answer."""
        content = json.dumps(body).encode()
        lines = [f"POST {path} HTTP/1.1", "host: tidegate", f"content-length: {len(content)}"]
        lines += [f"idempotency-key: {key}"] if key else []
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return Reply(int(head.split(b" ", 2)[1]), head, await self._reader.readexactly(length))

    async def issue(self, campaign: str, wish: Wish) -> Reply:
        """Ask until somebody decides, under the same key each time."""
        user, key = wish
        deadline, refusals = time.monotonic() + PATIENCE_S, 0
        while True:
            reply = await self.post(f"/v1/campaigns/{campaign}/coupons", {"user_id": user}, key)
            if reply.status != 503:
                return Reply(reply.status, reply.head, reply.body, refusals)
            assert b"retry-after: " in reply.head
            assert time.monotonic() < deadline, reply.body
            refusals += 1
            await asyncio.sleep(PAUSE_S)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """A client for as long as the block lasts."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


async def come(url: str, campaign: str, wishes: Iterable[Wish], heard: Callable[[Reply], None]) -> None:
    """The crowd: each wish is brought by whichever client is free, and every reply is heard."""
    line = iter(wishes)

    async def one() -> None:
        async with connected(url) as client:
            for wish in line:
                heard(await client.issue(campaign, wish))

    await asyncio.gather(*[one() for _ in range(CLIENTS)])
