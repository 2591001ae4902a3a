"""One HTTP exchange at ASGI level: a bounded body in, a whole answer out, under an id that logs and caller share."""

import itertools
import re
import secrets
import time
from collections.abc import Iterable
from typing import Final, get_args

import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.metrics import Metrics, Verb
from service.api.problems import Answer, headers_of, problem
from service.api.vocabulary import MAX_BODY_BYTES

HOT: Final = get_args(Verb)
"""The calls that everybody makes: they are measured apart, and too many to have a log line each."""
OTHER: Final = "other"

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_PROCESS: Final = secrets.token_hex(4).encode()
_new_ids: Final = map((_PROCESS + b"-%x").__mod__, itertools.count(1))

UPLOAD: Final = re.compile(r"POST /v1/campaigns/[^/]+/imports")
"""Such a call's body is as long as a file: the handler reads it piece by piece, within bounds of its own."""

log = structlog.get_logger()


class ClientGone(Exception):
    """The client went away before its request was whole: there is nobody to answer."""


class BodyTooLarge(HTTPException):
    """The body is longer than MAX_BODY_BYTES. An HTTPException, because FastAPI lets no other through."""

    def __init__(self) -> None:
        super().__init__(413)


def header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    """The first header of that name in lower case, or nothing."""
    return next((value for found, value in headers if found == name), b"")


def request_id_of(told: bytes) -> bytes:
    """The caller's `X-Request-Id` if it is a safe one, else a new one."""
    return told if told and _REQUEST_ID.fullmatch(told) else next(_new_ids)


async def read_body(receive: Receive) -> bytes:
    """The whole body. Raises BodyTooLarge as soon as that is known, ClientGone when the rest will never come."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message["type"] == "http.request" and message.get("more_body", False) and len(body) <= MAX_BODY_BYTES:
        message = await receive()
        body += message.get("body", b"")
    if message["type"] != "http.request":
        raise ClientGone
    if len(body) > MAX_BODY_BYTES:
        raise BodyTooLarge
    return body


async def send_answer(send: Send, answer: Answer, request_id: bytes) -> None:
    """Send the whole answer."""
    headers = [*headers_of(answer), (b"x-request-id", request_id)]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def body_too_large() -> Answer:
    """The answer to a body that is longer than any that makes sense."""
    return problem("body_too_large", f"A body has at most {MAX_BODY_BYTES} bytes.")


class Exchange:
    """Gives the FastAPI lane what the fast lane has by itself: an id, a bounded body, a log line and a measure.

    A body is JSON here, whatever `curl -d` calls it.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(header(scope["headers"], b"x-request-id"))
        began = time.perf_counter()
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id)]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id.decode()):
            try:
                scope = _as_json(scope)
                is_upload = UPLOAD.fullmatch(f"{scope['method']} {scope['path']}")
                bounded = receive if is_upload else await _read_ahead(receive)
                await self._app(scope, bounded, send_with_id)
            except ClientGone:
                return
            except Exception:
                # Starlette has answered already, and further out the error would be logged without the request's id.
                log.exception("request failed", call=_call_of(scope))
            seconds = time.perf_counter() - began
            call = _call_of(scope)
            self._metrics.observe_request(call, status, seconds)
            if call in HOT:
                self._metrics.count_slow(call)
            else:
                log.info(
                    "request",
                    method=scope["method"],
                    route=getattr(scope.get("route"), "path", None),
                    status=status,
                    duration_ms=round(seconds * 1000, 3),
                )


def _call_of(scope: Scope) -> str:
    # How long somebody listened says nothing about how long an answer takes.
    if str(scope["path"]).endswith("/stream"):
        return "stream"
    name = getattr(scope.get("route"), "name", OTHER)
    return name if name in HOT else OTHER


def _as_json(scope: Scope) -> Scope:
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


async def _read_ahead(receive: Receive) -> Receive:
    """Gives the app the whole body at once, or BodyTooLarge, if it asks for the body at all. Raises ClientGone."""
    try:
        first: list[Message] = [{"type": "http.request", "body": await read_body(receive), "more_body": False}]
    except BodyTooLarge as error:
        return _refusing(error)

    async def receive_again() -> Message:
        return first.pop() if first else await receive()

    return receive_again


def _refusing(error: BodyTooLarge) -> Receive:
    async def refuse() -> Message:
        raise error

    return refuse
