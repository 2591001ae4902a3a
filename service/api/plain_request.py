"""Plain requests to issue and redeem, recognised as they lie on the wire.

A parser that calls back for every header costs more than all that is done with them. One look is enough for what most
clients send, and less for what they send again: of two heads of one client mostly one value differs, the idempotency
key or the coupon's code. Whatever leaves a doubt goes to the server's parser and the FastAPI lane, and gets the same
answer there.
"""

import re
import string
from typing import Final, NamedTuple

from service.api.cross_site import OWN
from service.api.vocabulary import MAX_BODY_BYTES

MOST_HEAD_BYTES: Final = 8_192
"""Longer heads are not plain."""
MOST_HEADS: Final = 1_024
"""So many different heads are kept, and then all are read anew."""
LONGEST_REST: Final = 64
"""So many requests in a row at most are read without a look at what is kept."""

ISSUE: Final = b"POST /v1/campaigns/"
REDEMPTION: Final = b"POST /v1/coupons/"
"""So each begins."""
KEYS: Final = (b"\r\nIdempotency-Key: ", b"\r\nidempotency-key: ")
"""As nearly everybody spells it; other spellings are read anew each time."""
LINE_END: Final = b"\r\n"
HEAD_END: Final = b"\r\n\r\n"

_CODE_BYTES: Final = (string.ascii_letters + string.digits + "-").encode()
_KEY_BYTES: Final = bytes(range(ord("!"), ord("~") + 1))

_REQUEST: Final = re.compile(
    # What nearly everybody sends is tried by itself, before it is told from all headers that count. No line can be read
    # in two ways, so that nothing is tried over and over.
    # A header that counts is read once: `(?(3)(?!))` fails where group 3 has been found before. No value ends blank.
    rb"""
    POST\ /v1/(?:campaigns/([a-z0-9-]+)/coupons|coupons/([A-Za-z0-9-]+)/redemptions)\ HTTP/1\.1\r
    (?:\n(?:
        (?(3)(?!))(?i:idempotency-key):\ ([!-~][\ -~]*(?<!\ ))
      | [Cc]ontent-[Tt]ype:\ application/json
      | (?(4)(?!))(?i:content-length):\ ([0-9]{1,5})
      | (?(5)(?!))(?i:x-request-id):\ ([!-~]+)
      | (?(6)(?!))(?i:authorization):\ ([!-~][\ -~]*(?<!\ ))
      | (?(7)(?!))(?i:sec-fetch-site):\ ([!-~]+)
      | (?(8)(?!))(?i:origin):\ ([!-~]+)
      | (?i:connection:\ keep-alive)
      | (?!(?i:idempotency-key|content-length|x-request-id|authorization|connection
              |expect|origin|proxy-connection|sec-fetch-site|tidegate-ticket|transfer-encoding|upgrade):
          |[Cc]ontent-[Tt]ype:\ application/json\r)
        [A-Za-z0-9-]+:\ [!-~][\ -~]*(?<!\ )
    )\r)+
    \n\r\n
    """,
    re.VERBOSE,
)


class Head(NamedTuple):
    """What a client's requests of one kind have in common; `campaign_id` is empty for those to redeem.

    A header that was not sent is empty. `may_be_foreign` where a page of another site may have had it sent.
    """

    campaign_id: str
    request_id: bytes
    authorization: bytes
    body_bytes: int
    may_be_foreign: bool


PlainRequest = tuple[Head, bytes, int, int]
"""The head; what is the request's own: the idempotency key, empty if none was sent, or the code of the coupon to be
redeemed; and where the body begins and ends, whether that has arrived or not. No class: making one costs a sixth of all
that reading does.
"""


class PlainRequests:
    """Recognises plain requests, and keeps the heads that it has read."""

    def __init__(self) -> None:
        self._heads: dict[tuple[bytes, bytes], Head] = {}
        self._rest = self._resting = 0

    def read(self, data: bytes) -> PlainRequest | None:
        """The plain request that `data` begins with, or None if it begins with anything else."""
        if self._resting:
            self._resting -= 1
            return _read(data)
        if data.startswith(REDEMPTION):
            own_from, own_bytes = len(REDEMPTION), _CODE_BYTES
            own_to = data.find(b"/", own_from)
        elif data.startswith(ISSUE):
            own_from, own_bytes = _key_from(data), _KEY_BYTES
            own_to = data.find(LINE_END, own_from)
        else:
            return None
        body_from = data.find(HEAD_END, own_to) + len(HEAD_END)
        own = data[own_from:own_to]
        if not own_from < own_to < body_from <= MOST_HEAD_BYTES or own.translate(None, own_bytes):
            return _read(data)
        around = data[:own_from], data[own_to:body_from]
        head = self._heads.get(around)
        if head is None:
            return self._learn(around, data)
        self._rest = 0
        return head, own, body_from, body_from + head.body_bytes

    def _learn(self, around: tuple[bytes, bytes], data: bytes) -> PlainRequest | None:
        # Where no head comes twice, as behind a proxy that gives each request an id, looking for it is mostly left out.
        self._rest = self._resting = min(2 * self._rest + 1, LONGEST_REST)
        request = _read(data)
        if request is not None:
            head, own, body_from, _ = request
            if body_from == sum(map(len, around)) + len(own):
                if len(self._heads) >= MOST_HEADS:
                    self._heads = {}
                self._heads[around] = head
        return request


def _key_from(data: bytes) -> int:
    """Where the key begins; the end where there is none that is spelled as most are."""
    for name in KEYS:
        if (found := data.find(name)) >= 0:
            return found + len(name)
    return len(data)


def _read(data: bytes) -> PlainRequest | None:
    found = _REQUEST.match(data, 0, MOST_HEAD_BYTES)
    if found is None:
        return None
    campaign_id, code, key, length, request_id, authorization, site, origin = found.groups(b"")
    if not length or int(length) > MAX_BODY_BYTES:
        return None
    may_be_foreign = site not in OWN if site else bool(origin)
    head = Head(campaign_id.decode(), request_id, authorization, int(length), may_be_foreign)
    return head, key if campaign_id else code, found.end(), found.end() + head.body_bytes
