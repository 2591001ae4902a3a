"""Refusals while a breaker is open, at a glance: then everybody comes again and again, and each look costs.

Only a request that lies whole and plain before us is answered here, without a parser; whatever is unusual about one
(a head or a body in pieces, a header that says how to go on) takes the usual way and gets the same answer.
"""

import re
from functools import lru_cache
from typing import Final

from service.api.parts import Parts
from service.api.problems import Answer, issue_refusal
from service.domain.outcomes import IssuancePaused

_WHOLE: Final = re.compile(
    rb"POST /v1/campaigns/([a-z0-9-]{1,40})/coupons HTTP/1\.1\r((?:\n[A-Za-z0-9-]+: [ -~]*\r)+)\n\r\n"
)
_LENGTH: Final = b"\ncontent-length: "
_UNUSUAL: Final = (
    *(b"\nconnection:", b"\nexpect:", b"\ntransfer-encoding:", b"\nupgrade:", b"\nx-request-id:", b"\nauthorization:"),
    *(b"\nkeep-alive:", b"\nproxy-connection:"),
)


def refused_at_a_glance(parts: Parts, data: bytes) -> Answer | None:
    """The refusal, if `data` is one whole plain request to issue of a campaign that lets nobody in, else None."""
    request = _WHOLE.match(data)
    if request is None or not parts.breaker.refuses_everybody(campaign_id := request[1].decode()):
        return None
    head = request[2].lower()
    for name in _UNUSUAL:
        if name in head:
            return None
    length = head.partition(_LENGTH)[2].partition(b"\r")[0]
    if head.count(_LENGTH) != 1 or not length.isdigit() or int(length) != len(data) - request.end():
        return None
    answer, outcome = _refusal(parts.breaker.retry_after_s(campaign_id))
    parts.metrics.count_unserved("issue", parts.catalogue.known(campaign_id), outcome)
    return answer


@lru_cache(maxsize=1024)
def _refusal(retry_after_s: int) -> tuple[Answer, IssuancePaused]:
    """Each caller has a place of his own to come back to, but times are told in whole seconds."""
    outcome = IssuancePaused("breaker", retry_after_s)
    return issue_refusal(outcome), outcome
