"""Without API keys whoever reaches the service may change it; and any page reaches it, by its reader's browser."""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from service.api.door import AnswerResponse
from service.api.exchange import header
from service.api.problems import stock_problem

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""They change nothing, and what they read no page of another site is shown."""
OWN: Final = frozenset({b"same-origin", b"none"})
"""Values of `Sec-Fetch-Site`: sent by a page of this service, or by the browser's user himself."""


class OwnPagesOnly:
    """Refuses whatever a page of another site has a browser send, unless it only reads.

    It decides as `CrossOriginProtection` of Go 1.25's net/http does: by `Sec-Fetch-Site`, which no page can set; for
    a browser too old to send it, by whether the host of `Origin` is the one that was asked. Whoever sends neither is
    no browser.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS or _is_own(scope):
            await self._app(scope, receive, send)
        else:
            detail = "A page of another site sent this. Without API keys, only the service's own pages change anything."
            await AnswerResponse(stock_problem("cross_site", detail))(scope, receive, send)


def _is_own(scope: Scope) -> bool:
    headers = scope["headers"]
    if site := header(headers, b"sec-fetch-site"):
        return site in OWN
    origin = header(headers, b"origin")
    return not origin or origin.endswith(b"://" + header(headers, b"host"))
