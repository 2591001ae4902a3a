"""Webhooks by the Standard Webhooks convention: what is signed, where it may be sent, and when it is tried again."""

import hmac
import ipaddress
import random
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

MAX_WEBHOOKS: Final = 100
LONGEST_URL: Final = 500
SECRET_BYTES: Final = 32
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - what every secret begins with
FIRST_PAUSE_MS: Final = 1_000
LONGEST_PAUSE_MS: Final = 3_600_000
NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class WebhookStatus(StrEnum):
    """Whether a webhook is told of events."""

    ACTIVE = "active"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where events are to be told, which ones, and the secret that signs them."""

    id: str
    url: str
    types: tuple[str, ...]
    campaign_id: str | None
    secret: str
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class Health:
    """How the last deliveries went; `failures` in a row since `failing_since_ms`."""

    status: WebhookStatus = WebhookStatus.ACTIVE
    failures: int = 0
    failing_since_ms: int = 0
    retry_at_ms: int = 0
    failure: str = ""

    def after_failure(self, failure: str, now_ms: int, disable_after_ms: int) -> "Health":
        """The health after one more failure. A webhook that has failed for so long is disabled."""
        since_ms = self.failing_since_ms or now_ms
        over = now_ms - since_ms >= disable_after_ms
        return Health(
            WebhookStatus.DISABLED if over else WebhookStatus.ACTIVE,
            self.failures + 1,
            since_ms,
            now_ms + retry_pause_ms(self.failures),
            failure,
        )


def retry_pause_ms(failures: int) -> int:
    """How long to wait after a failure that so many came before: twice as long each time, half of it by chance."""
    pause_ms = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS << min(failures, 20))
    return pause_ms // 2 + random.randrange(pause_ms // 2 + 1)


def written_secret(secret: bytes) -> str:
    """The secret as the convention writes it."""
    return SECRET_PREFIX + b64encode(secret).decode()


def signed_headers(secret: str, message_id: str, timestamp_s: int, body: bytes) -> Mapping[str, str]:
    """The headers by which a receiver knows who sent the body and when; it should refuse one that is minutes old."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    digest = hmac.new(b64decode(secret.removeprefix(SECRET_PREFIX)), signed, sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": f"v1,{b64encode(digest).decode()}",
    }


def check_url(url: str, allow_private: bool) -> None:
    """Raise ValueError, with the reason, for a URL to which nothing is ever sent, whatever its name resolves to."""
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError(f"must be at most {LONGEST_URL} printable ASCII characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError("is no URL") from error
    if parts.scheme not in (("http", "https") if allow_private else ("https",)):
        raise ValueError("must begin with https://")
    if not host or port == 0 or parts.username is not None or parts.password is not None or parts.fragment:
        raise ValueError("must name a host, without a user, a password or a fragment")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if not allow_private and not is_public(address):
        raise ValueError("names an address that is not public")


def is_public(address: Address) -> bool:
    """Whether the address is on the open internet: not private, loopback, link-local, reserved or multicast.

    An IPv4 address inside an IPv6 one counts as itself.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner:
            return is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved
