"""Plain requests to issue and redeem, recognised as they lie on the wire.

A parser that calls back for every header costs more than all that is done with them. One look is enough for what most
clients send; whatever leaves a doubt goes to the server's parser and the FastAPI lane, and gets the same answer there.
"""

import re
from typing import Final, NamedTuple

from service.api.vocabulary import MAX_BODY_BYTES

_REQUEST: Final = re.compile(
    # What nearly everybody sends is tried by itself, before it is told from all headers that count.
    # A header that counts is read once: `(?(3)(?!))` fails where group 3 has been found before.
    rb"""
    POST\ /v1/(?:campaigns/([a-z0-9-]++)/coupons|coupons/([A-Za-z0-9-]++)/redemptions)\ HTTP/1\.1\r
    (?:\n(?:
        (?(3)(?!))(?i:idempotency-key):\ ([!-~]++(?:\ ++[!-~]++)*+)
      | [Cc]ontent-[Tt]ype:\ application/json
      | (?(4)(?!))(?i:content-length):\ ([0-9]{1,5})
      | (?(5)(?!))(?i:x-request-id):\ ([!-~]++)
      | (?(6)(?!))(?i:authorization):\ ([!-~]++(?:\ ++[!-~]++)*+)
      | (?i:connection:\ keep-alive)
      | (?!(?i:idempotency-key|content-length|x-request-id|authorization|connection
              |expect|proxy-connection|tidegate-ticket|transfer-encoding|upgrade):)
        [A-Za-z0-9-]++:\ [!-~]++(?:\ ++[!-~]++)*+
    )\r)++
    \n\r\n
    """,
    re.VERBOSE,
)


class PlainRequest(NamedTuple):
    """The head of a request: to issue a coupon of a campaign, or to redeem one by its code.

    Whichever it is not is empty, and so is a header that was not sent. The body's end may not have arrived yet.
    """

    campaign_id: bytes
    code: bytes
    idempotency_key: bytes
    request_id: bytes
    authorization: bytes
    body_from: int
    body_to: int


def plain_request(data: bytes) -> PlainRequest | None:
    """The plain request that `data` begins with, or None if it begins with anything else."""
    found = _REQUEST.match(data)
    if found is None:
        return None
    campaign_id, code, key, length, request_id, authorization = found.groups(b"")
    if not length or int(length) > MAX_BODY_BYTES:
        return None
    body_from = found.end()
    return PlainRequest(campaign_id, code, key, request_id, authorization, body_from, body_from + int(length))
