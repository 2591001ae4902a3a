"""Why: the ceiling: what the server itself can answer when there is nothing to do and nothing to read."""

import gc
import sys
from typing import Final

import uvicorn
from starlette.types import Receive, Scope, Send

from service.api.__main__ import GC_THRESHOLDS, SERVER

ANSWER: Final = (
    b'{"code":"BENCH-0123-4567-89AB-CDEF","campaign_id":"bench-issue","user_id":"u0000000","status":"issued",'
    b'"benefit":{"kind":"amount","amount":2500,"currency":"CNY","min_order_amount":0},'
    b'"issued_at":"2026-02-06T07:46:00.000+08:00","starts_at":"2026-02-06T07:46:00.000+08:00",'
    b'"expires_at":"2026-02-28T23:59:59.000+08:00"}'
)
"""As many bytes as a coupon has."""
HEADERS: Final = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(ANSWER))]


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer every request alike."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 201, "headers": HEADERS})
    await send({"type": "http.response.body", "body": ANSWER})


if __name__ == "__main__":
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    uvicorn.run(app, port=int(sys.argv[1]), **SERVER)
