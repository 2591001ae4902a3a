"""Why: what both lanes answer is compared byte for byte, so requests go over a real connection, as bytes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from uvicorn import Config
from uvicorn.server import ServerState

from service.api.__main__ import SERVER
from service.api.app import fastapi_lane
from service.api.fast_lane import LANE, FastLane
from service.api.parts import Parts
from service.api.protocol import FastLaneProtocol
from tests.api.caller import Caller, settings
from tests.store.desk import LAUNCH, TURNABLE_CLOCK, Room

REQUEST_ID: Final = (b"x-request-id", b"the-same-on-both-lanes")
KEY: Final = (b"idempotency-key", b"first")
LAST: Final = b"GET /livez HTTP/1.1\r\nhost: tidegate\r\nconnection: close\r\nx-request-id: last\r\n\r\n"
"""Its answer is the last on a connection, whatever came before."""
PATIENCE_S: Final = 20
PAUSE_MS: Final = 60_000
"""For how long at most a test pauses the store: longer than any test, which lets it go on itself."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: `target` as it stands in the request line, the body in the pieces in which it arrives.

    A client that goes away hangs up after its last piece.
    """

    method: str
    target: str
    pieces: tuple[bytes, ...] = ()
    headers: tuple[tuple[bytes, bytes], ...] = (KEY,)
    hangs_up: bool = False

    def spelled(self) -> list[bytes]:
        """What goes over the wire, piece by piece."""
        headers = [(b"host", b"tidegate.example"), REQUEST_ID, *self.headers]
        if not any(name in (b"content-length", b"transfer-encoding") for name, _ in headers):
            headers.append((b"content-length", b"%d" % (sum(map(len, self.pieces)) + self.hangs_up)))
        head = b"".join([b"%b: %b\r\n" % header for header in headers])
        line = f"{self.method} {self.target} HTTP/1.1\r\n".encode()
        first, *rest = self.pieces or (b"",)
        return [line + head + b"\r\n" + first, *rest]

    def is_complete(self) -> bool:
        """Whether the server gets all that the head promises."""
        length = dict(self.headers).get(b"content-length", b"")
        promised = int(length) if length.isdigit() and len(length) < 9 else 0
        return not self.hangs_up and promised <= sum(map(len, self.pieces))


class Lane:
    """One lane, and how to reach it."""

    def __init__(self, state: ServerState, app_state: dict[str, Any], socket: Path) -> None:
        self.state = state
        self.app_state = app_state
        self._socket = socket

    async def answer_to(self, ask: Ask) -> bytes:
        """All that comes back for one request, before the connection's last answer."""
        pieces = ask.spelled()
        if ask.is_complete():
            return await self.converse([*pieces[:-1], pieces[-1] + LAST])
        return await self.converse(pieces, hang_up=True)

    async def converse(self, pieces: Sequence[bytes], hang_up: bool = False) -> bytes:
        """Send the pieces one after the other, and read until the server closes."""
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_unix_connection(self._socket)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                # So that the server reads it by itself.
                await asyncio.sleep(0.001)
            if hang_up:
                writer.write_eof()
            said = await reader.read()
            writer.close()
        return said


@asynccontextmanager
async def served(parts: Parts, socket: Path, front: bool, **options: Any) -> AsyncIterator[Lane]:
    """The API's own protocol over the FastAPI lane, with or without the fast lane in front."""
    config = Config(fastapi_lane(parts), lifespan="off", **{**SERVER, **options})
    config.load()
    state = ServerState()
    state.default_headers = [(b"date", b"Fri, 06 Feb 2026 00:00:00 GMT")]
    app_state = {LANE: FastLane(parts, None)} if front else {}
    server = await asyncio.get_running_loop().create_unix_server(
        lambda: FastLaneProtocol(config=config, server_state=state, app_state=app_state), socket
    )
    async with server:
        yield Lane(state, app_state, socket)


@asynccontextmanager
async def opened(room: Room, url: str, folder: Path, **options: Any) -> AsyncIterator[tuple[Lane, Parts]]:
    """The fast lane before a running campaign that this process has met."""
    await room.clock.set(LAUNCH)
    parts = Parts(settings(url, group_commit={"store_timeout_ms": PAUSE_MS}), TURNABLE_CLOCK)
    async with parts.running(), Caller(fastapi_lane(parts)) as operator:
        await operator.open()
        assert (await operator.issue("somebody-else")).status_code == 201
        async with served(parts, folder / "lane", True, **options) as lane:
            yield lane, parts


async def until(true: Callable[[], object]) -> None:
    """Wait for what must come true."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
