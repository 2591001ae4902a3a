"""The fast lane: issue and redeem answered in the server's own protocol class, where a request first becomes one.

To hand a request to an ASGI application costs a scope, a task, an event and several futures, more than the coupon
itself. So the plain case is answered here, and everything else (another call, a campaign that this process has not met
yet, an escaped path, a pipelined request, `Expect`) goes on to the FastAPI lane, which answers issue and redeem alike.
"""

import re
import time
from typing import Any, Final

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api import hot_calls
from service.api.door import Doorkeeper
from service.api.exchange import body_too_large, request_id_of
from service.api.parts import Parts
from service.api.paused import refused_at_a_glance
from service.api.problems import Answer, internal_error, not_found
from service.api.vocabulary import MAX_BODY_BYTES
from service.domain.codes import CouponAddress, split_code
from service.domain.outcomes import IssueOutcome, NotServed, RedeemOutcome
from service.store.catalogue import KnownCampaign
from service.store.coupons import IssueRequest, RedeemRequest

LANE: Final = "fast_lane"
"""Under this name the application's lifespan hands the lane to the connections."""

_ISSUE: Final = re.compile(rb"/v1/campaigns/([a-z0-9-]+)/coupons")
_REDEEM: Final = re.compile(rb"/v1/coupons/([A-Za-z0-9-]+)/redemptions")

Headers = list[tuple[bytes, bytes]]

log = structlog.get_logger()


class FastLane:
    """What all connections of a process share."""

    def __init__(self, parts: Parts, doorkeeper: Doorkeeper | None) -> None:
        self.parts = parts
        self.doorkeeper = doorkeeper
        self._issues = parts.settings.serve_only != "redeem"
        self._redeems = parts.settings.serve_only != "issue"
        self._default_headers: Headers = []
        self._openings: dict[tuple[int, bytes], bytes] = {}

    def exchange(self, connection: "FastLaneProtocol") -> "IssueExchange | RedeemExchange | None":
        """What begins when a request's head is complete; None for a request of the FastAPI lane."""
        if self._issues and (issue := _ISSUE.fullmatch(connection.url)) is not None:
            known = self.parts.catalogue.known(issue[1].decode())
            if known is None or hot_calls.TICKET in connection.head:
                return None
            if known.campaign.id in self.parts.waiting_rooms.lines:
                return None
            return IssueExchange(self, connection, known)
        if self._redeems and (redeem := _REDEEM.fullmatch(connection.url)) is not None:
            code = redeem[1].decode()
            split = split_code(code)
            known = None if split is None else self.parts.catalogue.known_by_prefix(split[0])
            if split is None or known is None:
                return None
            address = known.codes.read_code(split[1])
            if address is not None or not self.parts.catalogue.may_be_imported(code):
                return RedeemExchange(self, connection, known, split[1], address)
        return None

    def refusal(self, data: bytes) -> Answer | None:
        """The answer to a whole plain request while a breaker lets nobody in; None for whatever needs a closer look."""
        if self.doorkeeper is not None or not self._issues or not self.parts.breaker.is_refusing:
            return None
        return refused_at_a_glance(self.parts, data)

    def spelled(self, answer: Answer, request_id: bytes, keep_alive: bool, default_headers: Headers) -> bytes:
        """The answer as it goes over the wire."""
        return b"%b%d\r\n%bx-request-id: %b\r\n%b\r\n%b" % (
            self._opening(answer, default_headers),
            len(answer.body),
            _spelled(answer.headers) if answer.headers else b"",
            request_id,
            b"" if keep_alive else b"connection: close\r\n",
            answer.body,
        )

    def _opening(self, answer: Answer, default_headers: Headers) -> bytes:
        # The server changes its headers with the date, once a second.
        if default_headers is not self._default_headers:
            self._default_headers = default_headers
            self._openings = {}
        opening = self._openings.get((answer.status, answer.media_type))
        if opening is None:
            opening = b"%b%bcontent-type: %b\r\ncontent-length: " % (
                STATUS_LINE[answer.status],
                _spelled(default_headers),
                answer.media_type,
            )
            self._openings[answer.status, answer.media_type] = opening
        return opening


class Exchange:
    """One request on its way to its answer. It stands where uvicorn has its cycle, and in the line for the store."""

    __slots__ = (
        "_body",
        "_call",
        "_connection",
        "_lane",
        "_request_id",
        "gone",
        "keep_alive",
        "response_complete",
        "since_s",
    )

    def __init__(self, call: str, lane: FastLane, connection: "FastLaneProtocol") -> None:
        self.since_s = time.perf_counter()
        self.gone = False
        self.keep_alive = connection.keeps_alive()
        self.response_complete = False
        self._call = call
        self._lane = lane
        self._connection = connection
        self._request_id = request_id_of(connection.head.get(b"x-request-id", b""))
        self._body = b""
        if lane.doorkeeper is not None and not lane.doorkeeper.admits(connection.head.get(b"authorization", b"")):
            self._answer(lane.doorkeeper.refusal())

    def add(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self._body += piece
        if len(self._body) > MAX_BODY_BYTES:
            self._answer(body_too_large())

    def complete(self) -> None:
        """The request is whole."""
        try:
            refused = self._begin()
        except Exception:
            self._break()
        else:
            if refused is not None:
                self._answer(refused)

    def _begin(self) -> Answer | None:
        """Stand in line, or be answered at once."""
        raise NotImplementedError

    def _break(self) -> None:
        log.exception("request failed", request_id=self._request_id.decode(), call=self._call)
        self._answer(internal_error())

    def _answer(self, answer: Answer) -> None:
        self.response_complete = True
        connection = self._connection
        connection.answer(answer, self._request_id, self.keep_alive)
        self._lane.parts.metrics.observe_request(self._call, answer.status, time.perf_counter() - self.since_s)


class IssueExchange(Exchange):
    """A request to issue a coupon of a campaign that this process knows."""

    __slots__ = ("_key", "_known", "_shard", "request")

    def __init__(self, lane: FastLane, connection: "FastLaneProtocol", known: KnownCampaign) -> None:
        super().__init__("issue", lane, connection)
        self._known = known
        self._key = connection.head.get(b"idempotency-key", b"")
        self._shard: int
        self.request: IssueRequest
        if not self.response_complete:
            refused = hot_calls.refused_unread(lane.parts, known.campaign.id)
            if refused is not None:
                self._answer(refused)

    def _begin(self) -> Answer | None:
        parts, known = self._lane.parts, self._known
        wish = hot_calls.read_issue(parts, known.campaign.id, self._key, self._body)
        if isinstance(wish, Answer):
            return wish
        self._shard, self.request = hot_calls.placed(known, wish)
        parts.issuing.enqueue(known, self._shard, self)
        return None

    def receive(self, outcome: IssueOutcome | NotServed) -> None:
        """Answer with what the store decided."""
        try:
            answer = hot_calls.issue_answer(self._lane.parts, self._known, self._shard, self.request, outcome)
        except Exception:
            self._break()
        else:
            self._answer(answer)


class RedeemExchange(Exchange):
    """A request to redeem a coupon of a campaign that this process knows."""

    __slots__ = ("_address", "_known", "_sealed", "request")

    def __init__(
        self,
        lane: FastLane,
        connection: "FastLaneProtocol",
        known: KnownCampaign,
        sealed: str,
        address: CouponAddress | None,
    ) -> None:
        super().__init__("redeem", lane, connection)
        self._known = known
        self._sealed = sealed
        self._address = address
        self.request: RedeemRequest

    def _begin(self) -> Answer | None:
        wish = hot_calls.read_redeem(self._body)
        if isinstance(wish, Answer):
            return wish
        if self._address is None:
            return not_found()
        self.request = hot_calls.redemption_of(self._address.sequence, wish)
        self._lane.parts.redeeming.enqueue(self._known, self._address.shard, self)
        return None

    def receive(self, outcome: RedeemOutcome | NotServed) -> None:
        """Answer with what the store decided."""
        try:
            answer = hot_calls.redeem_answer(self._lane.parts, self._known, self._sealed, outcome)
        except Exception:
            self._break()
        else:
            self._answer(answer)


class FastLaneProtocol(HttpToolsProtocol):
    """uvicorn's HTTP, but for the plain requests of the fast lane, if the application has one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.head: dict[bytes, bytes] = {}
        self._lane: FastLane | None = self.app_state.get(LANE)
        self._reading: IssueExchange | RedeemExchange | None = None
        self._waiting: IssueExchange | RedeemExchange | None = None
        self._is_between_requests = True
        self._answered_at_s = 0.0

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone: whatever he asked for is not answered, and taken out of the line if there is time."""
        if self._waiting is not None:
            self._waiting.gone = True
        if isinstance(self.cycle, Exchange):
            self.cycle = None  # type: ignore[assignment]  # as uvicorn's own, before the first request
        super()._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Answer at a glance while the breaker is open, else begin to read."""
        lane = self._lane
        if lane is not None and self._is_idle() and (refusal := lane.refusal(data)) is not None:
            self.answer(refusal, request_id_of(b""), keep_alive=True)
            lane.parts.metrics.observe_request("issue", refusal.status, 0.0)
        else:
            super().data_received(data)

    def on_message_begin(self) -> None:
        """A request begins. What ASGI needs for it is made once that is known to be needed."""
        self.url = b""
        self.headers = []
        self._is_between_requests = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. What uvicorn looks for in it is looked for once that is known to be needed."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Choose the lane."""
        self._reading = self._lane.exchange(self) if self._lane is not None and self._is_plain() else None
        if self._reading is None:
            url, headers = self.url, self.headers
            super().on_message_begin()
            super().on_url(url)
            for name, value in headers:
                super().on_header(name, value)
            super().on_headers_complete()
        else:
            self.cycle = self._reading  # type: ignore[assignment]  # it has what uvicorn asks of a cycle
            if not self._reading.response_complete:
                self._waiting = self._reading

    def on_body(self, body: bytes) -> None:
        """Hand on a piece of the body."""
        if self._reading is None:
            super().on_body(body)
        elif not self._reading.response_complete:
            self._reading.add(body)

    def on_message_complete(self) -> None:
        """Hand on that the request is whole."""
        self._is_between_requests = True
        if self._reading is None:
            super().on_message_complete()
        elif not self._reading.response_complete:
            self._reading.complete()

    def answer(self, answer: Answer, request_id: bytes, keep_alive: bool) -> None:
        """Write the fast lane's answer, in one piece."""
        self._waiting = None
        if self._lane is None or self.transport.is_closing():
            return
        self.transport.write(self._lane.spelled(answer, request_id, keep_alive, self.server_state.default_headers))
        if not keep_alive:
            self.transport.close()
        self.on_response_complete()

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
        if self.timeout_keep_alive_task is None:
            self._look_again_in(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nobody has asked for anything for long."""
        left_s = self.timeout_keep_alive - (self.loop.time() - self._answered_at_s)
        if not self._is_idle():
            self._look_again_in(self.timeout_keep_alive)
        elif left_s > 0:
            self._look_again_in(left_s)
        else:
            super().timeout_keep_alive_handler()

    def keeps_alive(self) -> bool:
        """Whether the connection outlives the request that has just begun."""
        return self.parser.get_http_version() != "1.0" and bool(self.parser.should_keep_alive())

    def _is_plain(self) -> bool:
        """Whether the request is of the kind that the fast lane answers, and the connection's turn is its own."""
        if self.parser.get_method() != b"POST" or self.parser.should_upgrade():
            return False
        self.head = dict(self.headers)
        return self._is_free() and len(self.head) == len(self.headers) and b"expect" not in self.head

    def _is_free(self) -> bool:
        """Whether nothing is under way on this connection, and the client takes what he is sent."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and not self.pipeline and not self.flow.write_paused

    def _is_idle(self) -> bool:
        return self._is_between_requests and self._is_free()

    def _look_again_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        """uvicorn would stop the timer at every request."""


def _spelled(headers: Headers | tuple[tuple[bytes, bytes], ...]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
