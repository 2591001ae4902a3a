"""The fast lane: issue and redeem answered where a request first becomes one, without an ASGI application.

A scope, a task, an event and several futures cost more than the coupon itself. So the plain case is answered here, and
everything else (another call, a campaign that this process has not met yet, a waiting line) goes on to the FastAPI
lane, which answers issue and redeem alike.
"""

import asyncio
import time
from typing import Final, Protocol

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.api import hot_calls
from service.api.door import Doorkeeper
from service.api.exchange import request_id_of
from service.api.parts import Parts
from service.api.plain_request import Head, PlainRequests
from service.api.problems import Answer, headers_of, internal_error, not_found
from service.api.problems import Headers as AnswerHeaders
from service.api.turns import Turns
from service.domain.codes import CouponAddress, split_code, split_written_code
from service.domain.outcomes import IssueOutcome, NotServed, RedeemOutcome
from service.store.catalogue import KnownCampaign
from service.store.coupons import IssueRequest, RedeemRequest

LANE: Final = "fast_lane"
"""Under this name the application's lifespan hands the lane to the connections."""

MOST_HEADS: Final = 1_024
"""So many heads of answers are kept, and then all are spelled anew."""
KEPT_ALIVE: Final = b"\r\n\r\n"
CLOSED: Final = b"\r\nconnection: close\r\n\r\n"
"""The end of a head, after the request's id."""

Headers = list[tuple[bytes, bytes]]

log = structlog.get_logger()


class Connection(Protocol):
    """What an exchange asks of the connection it came on."""

    def answer(self, answer: Answer, request_id: bytes, keep_alive: bool) -> None:
        """Write the answer, and go on to the connection's next request."""


class FastLane:
    """What all connections of a process share."""

    def __init__(self, parts: Parts, doorkeeper: Doorkeeper | None) -> None:
        self.parts = parts
        self.doorkeeper = doorkeeper
        self.turns = Turns()
        self.plain_requests = PlainRequests()
        self._issues = parts.settings.serve_only != "redeem"
        self._redeems = parts.settings.serve_only != "issue"
        self._default_headers: Headers = []
        self._heads: dict[tuple[int, bytes, int, AnswerHeaders], bytes] = {}
        self._decided: list[tuple[Exchange, Answer]] = []

    def answer_soon(self, exchange: "Exchange", answer: Answer) -> None:
        """Answer once all that has arrived is read: a peer who is woken between two reads costs as much as both."""
        if not self._decided:
            asyncio.get_running_loop().call_soon(self._answer_decided)
        self._decided.append((exchange, answer))

    def _answer_decided(self) -> None:
        decided, self._decided = self._decided, []
        for exchange, answer in decided:
            exchange.answer(answer)

    def exchange(self, head: Head, own: bytes, connection: Connection) -> "Exchange | None":
        """What answers the plain request once it is begun; None for one of the FastAPI lane."""
        if head.may_be_foreign and self.doorkeeper is None:
            return None
        if head.campaign_id:
            return self._issue(head, own, connection) if self._issues else None
        return self._redeem(head, own.decode(), connection) if self._redeems else None

    def spelled(self, answer: Answer, request_id: bytes, keep_alive: bool, default_headers: Headers) -> bytes:
        """The answer as it goes over the wire."""
        # The server changes its headers with the date, once a second; until then few heads are sent to many.
        if default_headers is not self._default_headers or len(self._heads) >= MOST_HEADS:
            self._default_headers, self._heads = default_headers, {}
        kind = (answer.status, answer.media_type, len(answer.body), answer.headers)
        head = self._heads.get(kind)
        if head is None:
            head = self._heads[kind] = _head(answer, default_headers)
        return b"".join((head, request_id, KEPT_ALIVE if keep_alive else CLOSED, answer.body))

    def _issue(self, head: Head, key: bytes, connection: Connection) -> "Exchange | None":
        campaign_id = head.campaign_id
        if self.parts.breaker.refuses_everybody(campaign_id):
            return PausedExchange(self, connection, head)
        known = self.parts.catalogue.known(campaign_id)
        if known is None or campaign_id in self.parts.waiting_rooms.lines:
            return None
        return IssueExchange(self, connection, head, known, key)

    def _redeem(self, head: Head, code: str, connection: Connection) -> "Exchange | None":
        catalogue = self.parts.catalogue
        if written := split_written_code(code):
            known = catalogue.known_by_prefix(written[0])
            address = None if known is None else known.codes.read_code(written[1])
            if known is not None and address is not None:
                return RedeemExchange(self, connection, head, known, code, address)
        split = split_code(code)
        known = None if split is None else catalogue.known_by_prefix(split[0])
        if split is None or known is None:
            return None
        address = known.codes.read_code(split[1])
        if address is None and catalogue.may_be_imported(code):
            return None
        return RedeemExchange(self, connection, head, known, known.codes.spelled(split[1]), address)


class Exchange:
    """One request on its way to its answer. It stands where uvicorn has its cycle, and in the line for the store."""

    call: str
    gone = False
    keep_alive = True
    response_complete = False
    """What the server asks of whatever stands on a connection: an exchange leaves it with its answer."""

    def __init__(self, lane: FastLane, connection: Connection, head: Head) -> None:
        self.since_s = time.perf_counter()
        self._lane = lane
        self._connection = connection
        self._head = head
        self._request_id = request_id_of(head.request_id)

    def begin(self, body: bytes) -> None:
        """Stand in line, or answer at once."""
        doorkeeper = self._lane.doorkeeper
        try:
            if doorkeeper is not None and not doorkeeper.admits(self._head.authorization):
                refused: Answer | None = doorkeeper.refusal()
            else:
                refused = self._enter(body)
        except Exception:
            self._break()
        else:
            if refused is not None:
                self._lane.answer_soon(self, refused)

    def _enter(self, body: bytes, /) -> Answer | None:
        """Stand in line, or return the answer."""
        raise NotImplementedError

    def _break(self) -> None:
        log.exception("request failed", request_id=self._request_id.decode(), call=self.call)
        self.answer(internal_error())

    def answer(self, answer: Answer) -> None:
        """Write the answer, unless nobody is there any more."""
        self._connection.answer(answer, self._request_id, self.keep_alive)
        self._lane.parts.metrics.observe_request(self.call, answer.status, time.perf_counter() - self.since_s)


class PausedExchange(Exchange):
    """A request to issue a coupon of a campaign that lets nobody in."""

    call = "issue"

    def _enter(self, _body: bytes) -> Answer:
        return hot_calls.paused(self._lane.parts, self._head.campaign_id)


class IssueExchange(Exchange):
    """A request to issue a coupon of a campaign that this process knows."""

    call = "issue"
    request: IssueRequest
    _shard: int

    def __init__(self, lane: FastLane, connection: Connection, head: Head, known: KnownCampaign, key: bytes) -> None:
        super().__init__(lane, connection, head)
        self._known = known
        self._key = key

    def _enter(self, body: bytes) -> Answer | None:
        parts, known = self._lane.parts, self._known
        if (shed := hot_calls.shed_unread(parts, known.campaign.id)) is not None:
            return shed
        wish = hot_calls.read_issue(parts, known.campaign.id, self._key, body)
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
            self.answer(answer)


class RedeemExchange(Exchange):
    """A request to redeem a coupon of a campaign that this process knows."""

    call = "redeem"
    request: RedeemRequest

    def __init__(
        self,
        lane: FastLane,
        connection: Connection,
        head: Head,
        known: KnownCampaign,
        code: str,
        address: CouponAddress | None,
    ) -> None:
        super().__init__(lane, connection, head)
        self._known = known
        self._code = code
        self._address = address

    def _enter(self, body: bytes) -> Answer | None:
        wish = hot_calls.read_redeem(body)
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
            answer = hot_calls.redeem_answer(self._lane.parts, self._known, self._code, outcome)
        except Exception:
            self._break()
        else:
            self.answer(answer)


def spelled_as_last(answer: Answer, request_id: bytes, default_headers: Headers) -> bytes:
    """An answer that ends its connection, as it goes over the wire."""
    return b"".join((_head(answer, default_headers), request_id, CLOSED, answer.body))


def _head(answer: Answer, default_headers: Headers) -> bytes:
    """All that goes before the request's id."""
    headers = [*default_headers, *headers_of(answer)]
    return b"%b%bx-request-id: " % (STATUS_LINE[answer.status], b"".join([b"%b: %b\r\n" % one for one in headers]))
