"""Who may come in, and how a handler of the FastAPI lane gets the parts it works with."""

import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Final

from fastapi import Depends, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.exchange import header, request_id_of, send_answer
from service.api.parts import Parts
from service.api.problems import Answer, headers_of, problem

PUBLIC_PATHS: Final = frozenset({"/status", "/v1/status", "/v1/status/stream", "/livez", "/readyz"})


def _parts_of(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


PartsOf = Annotated[Parts, Depends(_parts_of)]


class AnswerResponse(Response):
    """An Answer as it is, for a FastAPI handler to return."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.status_code = answer.status
        self.body = answer.body
        self.raw_headers = list(headers_of(answer))


class Doorkeeper:
    """Knows who shows one of the API keys."""

    def __init__(self, api_keys: Sequence[str]) -> None:
        self._digests = [sha256(key.encode()).digest() for key in api_keys]

    def admits(self, authorization: bytes) -> bool:
        """Whether the header of that name shows one of the keys."""
        scheme, _, key = authorization.partition(b" ")
        digest = sha256(key).digest()
        # Every key is compared, in constant time, so that an answer's delay tells nothing about them.
        known = [hmac.compare_digest(digest, other) for other in self._digests]
        return bool(scheme.lower() == b"bearer") and any(known)

    def refusal(self) -> Answer:
        """What everybody else is told."""
        challenge = ((b"www-authenticate", b'Bearer realm="tidegate"'),)
        return problem("unauthorized", "Send Authorization: Bearer and one of the service's API keys.", challenge)


class Door:
    """Lets in whom the doorkeeper admits; what the public may see stays open to all."""

    def __init__(self, app: ASGIApp, doorkeeper: Doorkeeper) -> None:
        self._app = app
        self._doorkeeper = doorkeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["path"] in PUBLIC_PATHS or self._admits(scope):
            await self._app(scope, receive, send)
        else:
            await send_answer(
                send, self._doorkeeper.refusal(), request_id_of(header(scope["headers"], b"x-request-id"))
            )

    def _admits(self, scope: Scope) -> bool:
        return self._doorkeeper.admits(header(scope["headers"], b"authorization"))
