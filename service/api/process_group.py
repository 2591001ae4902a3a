"""Which calls a group of processes serves: redemption may have processes of its own, which no stampede reaches."""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.exchange import header, request_id_of, send_answer
from service.api.problems import Answer, problem
from service.settings import Group

ELSEWHERE: Final[dict[Group, str]] = {
    "issue": "This process serves everything but redemption.",
    "redeem": "This process serves redemption only.",
}


def group_of(path: str) -> Group | None:
    """The group that a call belongs to; None where both serve it. What merchants do is redemption, all else issue."""
    match path.split("/")[1:]:
        case ["v1", "redemptions" | "merchants", *_] | ["v1", "coupons", _, "redemptions"]:
            return "redeem"
        case ["v1", "coupons", _] | ["livez" | "readyz" | "metrics" | "openapi.json"] | ["docs", *_]:
            return None
        case _:
            return "issue"


def not_served_here(only: Group) -> Answer:
    """The answer to a call of the other group: it was sent to the wrong process, and may be sent to another."""
    return problem("not_served_here", ELSEWHERE[only])


class ProcessGroup:
    """Passes on the calls of one group, and those that both serve."""

    def __init__(self, app: ASGIApp, only: Group) -> None:
        self._app = app
        self._only = only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http" and group_of(scope["path"]) not in (self._only, None):
            request_id = request_id_of(header(scope["headers"], b"x-request-id"))
            await send_answer(send, not_served_here(self._only), request_id)
            return
        await self._app(scope, receive, send)
