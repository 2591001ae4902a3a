"""One write per answer: uvicorn's protocol over a transport that gathers what one step of the event loop writes.

uvicorn writes an answer's head and its body apart. On a busy machine the system call, and the client it wakes twice,
cost more than everything else that is done for a request.
"""

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class CorkedTransport(asyncio.Transport):
    """Passes everything on, but writes of one step of the event loop together."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._pieces: list[Any] = []

    def write(self, data: Any) -> None:
        """Have the data written at the end of this step."""
        if not self._pieces:
            self._loop.call_soon(self._flush)
        self._pieces.append(data)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Have the data written at the end of this step."""
        for data in list_of_data:
            self.write(data)

    def close(self) -> None:
        """Write what is left, then close."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close without writing what is left."""
        self._pieces.clear()
        self._transport.abort()

    def is_closing(self) -> bool:
        """Whether the transport is closed or about to be."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Stop reading."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Go on reading."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What is known of the connection."""
        return self._transport.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the connection over to another protocol."""
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol that the connection has."""
        return self._transport.get_protocol()

    def _flush(self) -> None:
        if self._pieces:
            pieces, self._pieces = self._pieces, []
            self._transport.writelines(pieces)


class CorkedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP over a corked transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin to serve a connection."""
        super().connection_made(CorkedTransport(transport, self.loop))
