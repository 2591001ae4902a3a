"""uvicorn's HTTP behind the fast lane: a plain request on a connection that is free never reaches its parser."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.fast_lane import LANE, Exchange, FastLane
from service.api.plain_request import REDEMPTION
from service.api.problems import Answer


class FastLaneProtocol(HttpToolsProtocol):
    """One connection. An application without a fast lane is served as by uvicorn itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lane: FastLane | None = self.app_state.get(LANE)
        self._begun = b""
        self._whole_at = 0
        self._waits_for_turn = False
        self._waiting: Exchange | None = None
        self._is_between_requests = True
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
                self._pieces += 1
                super().data_received(data)
                return
            data = data[taken:]

    def _take(self, data: bytes, lane: FastLane) -> int:
        """Begin the plain request at the beginning, or keep it until the rest of its body comes.

        Returns how many bytes are dealt with; none if the FastAPI lane has to answer.
        """
        request = lane.plain_requests.read(data)
        exchange = None if request is None else lane.exchange(request, self)
        if request is None or exchange is None:
            return 0
        if request.body_to > len(data):
            self._begun, self._whole_at = data, request.body_to
            return len(data)
        self._waiting = exchange
        self.cycle = exchange  # type: ignore[assignment]  # it has what uvicorn asks of a cycle
        exchange.begin(data[request.body_from : request.body_to])
        return request.body_to

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

    def on_message_begin(self) -> None:
        """Note that the parser is in the midst of a request."""
        self._is_between_requests = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Note that it is through."""
        self._is_between_requests = True
        super().on_message_complete()

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
