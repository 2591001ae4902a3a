"""The fast lane: issue and redeem answered at ASGI level, in front of FastAPI, which costs several times as much.

It recognises two paths, reads a bounded body and hands over to `hot_calls`; all else goes on to the FastAPI lane.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from service.api import hot_calls
from service.api.exchange import BodyTooLarge, ClientGone, body_too_large, read_body, request_id_of, send_answer
from service.api.parts import Parts
from service.api.problems import Answer, problem

ISSUE_PREFIX: Final = "/v1/campaigns/"
ISSUE_SUFFIX: Final = "/coupons"
REDEEM_PREFIX: Final = "/v1/coupons/"
REDEEM_SUFFIX: Final = "/redemptions"

log = structlog.get_logger()


class FastLane:
    """Answers issue and redeem itself, and every other request through `app`."""

    def __init__(self, app: ASGIApp, parts: Parts) -> None:
        self._app = app
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http" and scope["method"] == "POST":
            path: str = scope["path"]
            if (campaign_id := _between(ISSUE_PREFIX, path, ISSUE_SUFFIX)) is not None:
                await self._serve("issue", self._issue, campaign_id, scope, receive, send)
                return
            if (code := _between(REDEEM_PREFIX, path, REDEEM_SUFFIX)) is not None:
                await self._serve("redeem", self._redeem, code, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _serve(
        self,
        call: str,
        answer_to: Callable[[str, Scope, Receive], Awaitable[Answer]],
        name: str,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        began = time.perf_counter()
        request_id = request_id_of(scope)
        try:
            answer = await answer_to(name, scope, receive)
        except ClientGone:
            return
        except BodyTooLarge:
            answer = body_too_large()
        except Exception:
            log.exception("request failed", request_id=request_id.decode(), call=call)
            answer = problem("internal_error", "The error has been logged under this answer's X-Request-Id.")
        await send_answer(send, answer, request_id)
        self._parts.metrics.observe_request(call, answer.status, time.perf_counter() - began)

    async def _issue(self, campaign_id: str, scope: Scope, receive: Receive) -> Answer:
        refused = hot_calls.refused_unread(self._parts, campaign_id)
        if refused is not None:
            return refused
        body = await read_body(receive)
        return await hot_calls.issue(self._parts, campaign_id, scope["headers"], body)

    async def _redeem(self, code: str, _scope: Scope, receive: Receive) -> Answer:
        return await hot_calls.redeem(self._parts, code, await read_body(receive))


def _between(prefix: str, path: str, suffix: str) -> str | None:
    """What stands between the two, if it is one path segment."""
    if not path.startswith(prefix) or not path.endswith(suffix):
        return None
    name = path[len(prefix) : -len(suffix)]
    return name if name and "/" not in name else None
