"""uvicorn's HTTP behind the fast lane: a plain request on a connection that is free never reaches its parser."""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.exchange import header, request_id_of
from service.api.fast_lane import LANE, Exchange, FastLane, spelled_as_last
from service.api.plain_request import REDEMPTION
from service.api.problems import Answer, problem
from service.api.vocabulary import MAX_HEAD_BYTES

PARSED_AT_ONCE: Final = 16 * 1024
"""So many bytes at most are parsed between two looks at how long the head has become."""


class FastLaneProtocol(HttpToolsProtocol):
    """One connection. An application without a fast lane is served as by uvicorn, but for what is no request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lane: FastLane | None = self.app_state.get(LANE)
        self._begun = b""
        self._whole_at = 0
        self._waits_for_turn = False
        self._waiting: Exchange | None = None
        self._is_between_requests = True
        self._is_in_head = False
        self._head_bytes = 0
        self._is_refused = False
        self._answered_at_s = 0.0
        self._pieces = 0
        self._pieces_seen = -1

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Wait for the first request, but not for ever."""
        super().connection_made(transport)
        self._answered_at_s = self.loop.time()
        self._look_again_in(self.timeout_keep_alive)

    def data_received(self, data: bytes) -> None:
        """Begin it; in one of the next turns, if this one has begun many and it is no redemption."""
        if self._begun:
            self._pieces += 1
            data = self._begun + data
            if len(data) < self._whole_at:
                # A body that comes byte by byte must not have its head read as often.
                self._begun = data
                return
            self._begun, self._whole_at = b"", 0
        if self._waits_for_turn:
            # Whoever sends on and on is not listened to until it is his turn.
            self.flow.pause_reading()
            self._begun = data
        elif self._lane is None or data.startswith(REDEMPTION) or self._lane.turns.admits(self):
            self._begin(data)
        else:
            self._begun = data
            self._waits_for_turn = True

    def read_on(self) -> None:
        """Begin what has waited for its turn."""
        self._waits_for_turn = False
        data, self._begun = self._begun, b""
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._begin(data)

    def shutdown(self) -> None:
        """Close, once what has arrived is answered."""
        if self._waits_for_turn:
            self.read_on()
        super().shutdown()

    def _begin(self, data: bytes) -> None:
        """Begin what of it is plain, and read the rest as uvicorn does."""
        while data:
            taken = self._take(data, self._lane) if self._lane is not None and self._is_free() else 0
            if not taken:
                self._parse(data)
                return
            data = data[taken:]

    def _parse(self, data: bytes) -> None:
        """Read as uvicorn does, but no head without end: its parser collects each line, and copies it ever anew."""
        if self._is_refused:
            return
        self._pieces += 1
        for at in range(0, len(data), PARSED_AT_ONCE):
            piece = data[at : at + PARSED_AT_ONCE]
            self._head_bytes += len(piece)
            super().data_received(piece)
            if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(problem("head_too_large", f"A request's head has at most {MAX_HEAD_BYTES} bytes."))
            if self._is_refused or self.transport.is_closing():
                return

    def _take(self, data: bytes, lane: FastLane) -> int:
        """Begin the plain request at the beginning, or keep it until the rest of its body comes.

        Returns how many bytes are dealt with; none if the FastAPI lane has to answer.
        """
        request = lane.plain_requests.read(data)
        if request is None:
            return 0
        head, own, body_from, body_to = request
        exchange = lane.exchange(head, own, self)
        if exchange is None:
            return 0
        if body_to > len(data):
            self._begun, self._whole_at = data, body_to
            return len(data)
        self._waiting = exchange
        self.cycle = exchange  # type: ignore[assignment]  # it has what uvicorn asks of a cycle
        exchange.begin(data[body_from:body_to])
        return body_to

    def answer(self, answer: Answer, request_id: bytes, keep_alive: bool) -> None:
        """Write the fast lane's answer, in one piece."""
        if self.cycle is self._waiting:  # type: ignore[comparison-overlap]  # see _take
            self.cycle = None  # type: ignore[assignment]  # as before the first request
        self._waiting = None
        if self._lane is None or self.transport.is_closing():
            return
        self.transport.write(self._lane.spelled(answer, request_id, keep_alive, self.server_state.default_headers))
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: whatever he asked for is not answered, and taken out of the line if there is time."""
        if self._waiting is not None:
            self._waiting.gone = True
        if self.cycle is self._waiting:  # type: ignore[comparison-overlap]  # see _take
            self.cycle = None  # type: ignore[assignment]  # uvicorn would tell it of the end, which it has been told
        super()._unset_keepalive_if_required()
        super().connection_lost(exc)

    def send_400_response(self, _msg: str) -> None:
        """Refuse what the parser cannot read, with a problem like all others."""
        self._refuse(problem("malformed_http", "What was sent cannot be read as HTTP; the connection is closed."))

    def _refuse(self, answer: Answer) -> None:
        """Say why nothing more is read here, and read no more.

        Whoever is cut off while he sends may never read why. So he may send on, unread, until he or the timer closes.
        """
        if not self._is_due():
            # It would be taken for the answer to an earlier request.
            self.transport.close()
            return
        self._is_refused = True
        request_id = request_id_of(header(self.headers, b"x-request-id"))
        self.transport.write(spelled_as_last(answer, request_id, self.server_state.default_headers))
        self.transport.write_eof()
        self.flow.resume_reading()
        if self.cycle is not None:
            # What was begun of the request hears that the rest never comes.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.cycle = None  # type: ignore[assignment]  # as before the first request

    def _is_due(self) -> bool:
        """Whether the next answer on this connection is that to the request which the parser is reading."""
        if self._waiting is not None or self.pipeline:
            return False
        cycle = self.cycle
        return cycle is None or cycle.response_complete or (cycle.more_body and not cycle.response_started)

    def on_message_begin(self) -> None:
        """Note that the parser is in the midst of a request, and of its head."""
        self._is_between_requests = False
        self._begin_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Note that the parser is through with the head."""
        self._is_in_head = False
        super().on_headers_complete()

    def on_chunk_header(self) -> None:
        """Reckon with trailers, which follow the last chunk's header; they are lines like a head's."""
        self._begin_head()

    def on_body(self, body: bytes) -> None:
        """Note that the chunk is not the last."""
        self._is_in_head = False
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the parser is through with the request."""
        self._is_between_requests = True
        self._is_in_head = False
        super().on_message_complete()

    def _begin_head(self) -> None:
        self._is_in_head = True
        self._head_bytes = 0

    def on_response_complete(self) -> None:
        """Go on to what waits on this connection, or wait for its next request.

        uvicorn starts a timer after each answer and stops it at the next request; one that looks again is cheaper.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._answered_at_s = self.loop.time()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection whose client has been silent for long: between requests, or in the midst of one."""
        left_s = self._patience_left_s()
        if left_s > 0:
            self._look_again_in(left_s)
        else:
            super().timeout_keep_alive_handler()

    def _patience_left_s(self) -> float:
        """For how long the client may go on being silent."""
        if self._is_owed_more():
            pieces_seen, self._pieces_seen = self._pieces_seen, self._pieces
            return 0.0 if pieces_seen == self._pieces else self.timeout_keep_alive
        if self._begun or not self._is_free():
            return self.timeout_keep_alive
        return self.timeout_keep_alive - (self.loop.time() - self._answered_at_s)

    def _is_owed_more(self) -> bool:
        """Whether the client has sent a part of a request, and nothing but he keeps the rest."""
        is_begun = bool(self._begun) or not self._is_between_requests
        return is_begun and not self._waits_for_turn and not self.flow.read_paused

    def _is_free(self) -> bool:
        """Whether nothing is under way on this connection, and the client takes what he is sent."""
        answered = self.cycle is None or self.cycle.response_complete
        return self._is_between_requests and answered and not self.pipeline and not self.flow.write_paused

    def _look_again_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """uvicorn would stop the timer at every request."""
