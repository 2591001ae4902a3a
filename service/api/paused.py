"""Refusals while the breaker is open, written ahead: then everybody comes again and again, and each look costs.

Only a request that lies whole and plain before us is answered here, without a parser; whatever is unusual about one
(a head or a body in pieces, a header that says how to go on) takes the usual way and gets the same answer.
"""

import re
import time
from itertools import cycle
from typing import Final

from service.api.parts import Parts
from service.api.problems import Answer, issue_refusal
from service.domain.outcomes import IssuancePaused

DRAWS: Final = 64
"""Answers that differ in when to come back, which is drawn along the ramp, so that nobody returns in a herd."""
MOMENT_S: Final = 0.25
"""How long answers are used before they are drawn anew; times to come back are told in whole seconds."""

PAUSED: Final = IssuancePaused("breaker", 0)
"""For the count; each caller is told a time of his own."""

_WHOLE: Final = re.compile(
    rb"POST /v1/campaigns/([a-z0-9-]{1,40})/coupons HTTP/1\.1\r((?:\n[A-Za-z0-9-]+: [ -~]*\r)+)\n\r\n"
)
_LENGTH: Final = b"\ncontent-length: "
_UNUSUAL: Final = (
    *(b"\nconnection:", b"\nexpect:", b"\ntransfer-encoding:", b"\nupgrade:", b"\nx-request-id:", b"\nauthorization:"),
    *(b"\nkeep-alive:", b"\nproxy-connection:"),
)


class PausedAnswers:
    """The refusals of one process, ready to be sent."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._answers = cycle([Answer(503, b"")])
        self._until_s = 0.0

    def answer_to(self, data: bytes) -> Answer | None:
        """The answer if `data` is one whole plain request to issue, else None."""
        request = _WHOLE.match(data)
        if request is None:
            return None
        head = request[2].lower()
        for name in _UNUSUAL:
            if name in head:
                return None
        length = head.partition(_LENGTH)[2].partition(b"\r")[0]
        if head.count(_LENGTH) != 1 or not length.isdigit() or int(length) != len(data) - request.end():
            return None
        return self._draw(request[1].decode())

    def _draw(self, campaign_id: str) -> Answer:
        now_s = time.monotonic()
        if now_s >= self._until_s:
            self._until_s = now_s + MOMENT_S
            waits_s = [self._parts.breaker.retry_after_s() for _ in range(DRAWS)]
            self._answers = cycle([issue_refusal(IssuancePaused("breaker", wait_s)) for wait_s in waits_s])
        self._parts.metrics.count_unserved("issue", self._parts.catalogue.known(campaign_id), PAUSED)
        return next(self._answers)
