"""Why: a place in line must cost the store nothing, so the ticket itself says whose place it is, under a seal."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Final

MAX_TICKET_LENGTH: Final = 256
"""Longer text is no ticket; a sealed one has at most 212 characters."""
CLAIM_BYTES: Final = 8

_MAC_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Ticket:
    """A user's place in a campaign's line. Whatever is issued by it is one claim, so it gives one coupon at most."""

    campaign_id: str
    number: int
    claim: bytes
    user_id: str


class TicketBook:
    """Seals tickets and opens them again, under a key of its own that is derived from the code secret."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"tidegate tickets", "sha256")

    def seal(self, ticket: Ticket) -> str:
        """The ticket as its holder carries it, in a header or a URL. Who decodes it sees his own user id, no secret."""
        said = "\n".join((ticket.campaign_id, str(ticket.number), ticket.claim.hex(), ticket.user_id)).encode()
        mac = hmac.digest(self._key, said, "sha256")[:_MAC_BYTES]
        return urlsafe_b64encode(mac + said).rstrip(b"=").decode()

    def open(self, text: str) -> Ticket | None:
        """The ticket of that text, or None for any other than this book sealed, be it by one character."""
        if len(text) > MAX_TICKET_LENGTH or not text.isascii():
            return None
        try:
            said = urlsafe_b64decode(text + "=" * (-len(text) % 4))[_MAC_BYTES:].decode()
            campaign_id, number, claim, user_id = said.split("\n")
            ticket = Ticket(campaign_id, int(number), bytes.fromhex(claim), user_id)
        except ValueError:
            return None
        # To seal it again and compare leaves no second spelling of a ticket.
        return ticket if hmac.compare_digest(self.seal(ticket), text) else None
