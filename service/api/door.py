"""Who may come in, and how a handler of the FastAPI lane gets the parts it works with."""

import hmac
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Final

from fastapi import Depends, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.exchange import request_id_of, send_answer
from service.api.parts import Parts
from service.api.problems import Answer, problem

PUBLIC_PATHS: Final = frozenset({"/v1/status", "/livez", "/readyz"})


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
        self.raw_headers = list(answer.headers)


class Door:
    """Lets in whoever shows one of the API keys; what the public may see stays open to all."""

    def __init__(self, app: ASGIApp, api_keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [sha256(key.encode()).digest() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["path"] in PUBLIC_PATHS or self._admits(scope):
            await self._app(scope, receive, send)
            return
        challenge = ((b"www-authenticate", b'Bearer realm="tidegate"'),)
        refused = problem("unauthorized", "Send Authorization: Bearer and one of the service's API keys.", challenge)
        await send_answer(send, refused, request_id_of(scope))

    def _admits(self, scope: Scope) -> bool:
        shown = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        scheme, _, key = shown.partition(b" ")
        digest = sha256(key).digest()
        # Every key is compared, in constant time, so that an answer's delay tells nothing about them.
        known = [hmac.compare_digest(digest, other) for other in self._digests]
        return bool(scheme.lower() == b"bearer") and any(known)
