"""Why: what both lanes answer is compared byte for byte, so requests are made as a server hands them over."""

from collections import deque
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from starlette.types import ASGIApp, Message

REQUEST_ID: Final = (b"x-request-id", b"the-same-on-both-lanes")
KEY: Final = (b"idempotency-key", b"first")


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


@dataclass(frozen=True, slots=True)
class Answer:
    """All that goes over the wire in return; a client that hung up gets nothing."""

    status: int = 0
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""


async def answer_to(app: ASGIApp, ask: Ask) -> Answer:
    """What the app answers to one request."""
    raw_path, _, query = ask.target.partition("?")
    pieces = deque(ask.pieces or (b"",))
    start: Message = {"status": 0, "headers": []}
    body = bytearray()

    async def receive() -> Message:
        if not pieces:
            return {"type": "http.disconnect"}
        piece = pieces.popleft()
        return {"type": "http.request", "body": piece, "more_body": bool(pieces) or ask.hangs_up}

    async def send(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
        else:
            body.extend(message.get("body", b""))

    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": ask.method,
        "scheme": "http",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"tidegate.example"), REQUEST_ID, *ask.headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await app(scope, receive, send)
    return Answer(start["status"], tuple((bytes(name), bytes(value)) for name, value in start["headers"]), bytes(body))
