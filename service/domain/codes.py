"""Codes that prove themselves: computed from a sequence number, never generated in bulk and never stored.

A code seals its payload in the manner of SIV (Rogaway and Shrimpton, 2006): a keyed MAC of the payload comes first,
then the payload masked with a keystream derived from that MAC. Whoever lacks the key can neither read the sequence
nor make a code that opens, so a guessed or mistyped code is refused without asking the store.
"""

import hmac
from hashlib import blake2s
from typing import Final, NamedTuple

SHARD_BITS: Final = 6
SEQUENCE_BITS: Final = 34
ATTEMPT_BITS: Final = 16
CODE_LENGTH: Final = 16
DASHED_LENGTH: Final = 20
"""Of a code's sealed body as it is written: a dash before every four letters."""
REDEMPTION_LENGTH: Final = 24
MAX_CODE_LENGTH: Final = 64
"""The longest text that is looked at as a code at all; a written one has at most 28 characters."""

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = [high + low for high in _ALPHABET for low in _ALPHABET]
_QUARTER: Final = (1 << 30) - 1
_DIGITS: Final = bytes(
    b"0123456789ABCDEFGHIJKLMNOPQRSTUV"[_ALPHABET.index(chr(byte))] if chr(byte) in _ALPHABET else ord("!")
    for byte in range(256)
)
"""From our digits to those of `int(text, 32)`, and from all else to what is none of its."""


class CouponAddress(NamedTuple):
    """Where a coupon lies: its campaign's shard and its number there."""

    shard: int
    sequence: int


class RedemptionAddress(NamedTuple):
    """Where a redemption lies: its coupon, and which attempt on it this one is."""

    coupon: CouponAddress
    attempt: int


class Seal:
    """Seals payloads of a fixed number of bytes under one key; `person` keeps the uses of a key apart."""

    def __init__(self, key: bytes, person: bytes, payload_bytes: int, mac_bytes: int) -> None:
        # Copying a keyed hash is cheaper than keying one; every coupon issued needs both.
        self._mac = blake2s(key=key, digest_size=mac_bytes, person=person + b"-m")
        self._mask = blake2s(key=key, digest_size=payload_bytes, person=person + b"-k")
        self._mac_bytes = mac_bytes
        self._payload_bytes = payload_bytes
        self._payload_bits = 8 * payload_bytes
        self._payload_mask = (1 << self._payload_bits) - 1

    def close(self, payload: int) -> tuple[int, int]:
        """The MAC and the masked payload."""
        mac = self._mac.copy()
        mac.update(payload.to_bytes(self._payload_bytes))
        digest = mac.digest()
        mask = self._mask.copy()
        mask.update(digest)
        return int.from_bytes(digest), payload ^ int.from_bytes(mask.digest())

    def open(self, word: int) -> int | None:
        """The payload of a MAC and a masked payload in one word, or None for a word that this key did not seal."""
        digest = (word >> self._payload_bits).to_bytes(self._mac_bytes)
        mask = self._mask.copy()
        mask.update(digest)
        payload = word & self._payload_mask ^ int.from_bytes(mask.digest())
        mac = self._mac.copy()
        mac.update(payload.to_bytes(self._payload_bytes))
        return payload if hmac.compare_digest(digest, mac.digest()) else None


class CodeBook:
    """Reads and writes the coupon codes and redemption ids of one campaign."""

    def __init__(self, secret: bytes, campaign_id: str, prefix: str) -> None:
        key = blake2s(campaign_id.encode(), key=secret, person=b"tg-codes").digest()
        self._prefix = prefix
        self._coupons = Seal(key, b"coupon", payload_bytes=5, mac_bytes=5)
        self._redemptions = Seal(key, b"redeem", payload_bytes=7, mac_bytes=8)

    def code(self, shard: int, sequence: int) -> str:
        """The coupon's code: the campaign's prefix and four groups of four."""
        mac, masked = self._coupons.close(shard << SEQUENCE_BITS | sequence)
        return (
            f"{self._prefix}"
            f"-{_PAIRS[mac >> 30]}{_PAIRS[mac >> 20 & 1023]}-{_PAIRS[mac >> 10 & 1023]}{_PAIRS[mac & 1023]}"
            f"-{_PAIRS[masked >> 30]}{_PAIRS[masked >> 20 & 1023]}-{_PAIRS[masked >> 10 & 1023]}{_PAIRS[masked & 1023]}"
        )

    def spelled(self, body: str) -> str:
        """A code as it is written; `body` is the second half of `split_code`."""
        return f"{self._prefix}-{body[:4]}-{body[4:8]}-{body[8:12]}-{body[12:]}"

    def read_code(self, body: str) -> CouponAddress | None:
        """Where the coupon of a code lies; `body` is the second half of `split_code`. None for a forged code."""
        word = _read(body, CODE_LENGTH)
        payload = None if word is None else self._coupons.open(word)
        return None if payload is None else _coupon_address(payload)

    def redemption_id(self, shard: int, sequence: int, attempt: int) -> str:
        """The id of that attempt: it names its campaign by prefix and tells nothing about the coupon's code."""
        coupon = shard << SEQUENCE_BITS | sequence
        mac, masked = self._redemptions.close(coupon << ATTEMPT_BITS | attempt)
        return f"rd-{self._prefix}-{_written(mac << 56 | masked)}"

    def read_redemption_id(self, body: str) -> RedemptionAddress | None:
        """Where a redemption lies, or None for an id that was never given out."""
        word = _read(body, REDEMPTION_LENGTH)
        payload = None if word is None else self._redemptions.open(word)
        if payload is None:
            return None
        return RedemptionAddress(_coupon_address(payload >> ATTEMPT_BITS), payload & ((1 << ATTEMPT_BITS) - 1))


def _written(word: int) -> str:
    """The 24 digits of a word of 120 bits, by quarters: small numbers are quicker to take apart."""
    high, low = word >> 60, word & (1 << 60) - 1
    one, two, three, four = high >> 30, high & _QUARTER, low >> 30, low & _QUARTER
    return (
        f"{_PAIRS[one >> 20]}{_PAIRS[one >> 10 & 1023]}{_PAIRS[one & 1023]}"
        f"{_PAIRS[two >> 20]}{_PAIRS[two >> 10 & 1023]}{_PAIRS[two & 1023]}"
        f"{_PAIRS[three >> 20]}{_PAIRS[three >> 10 & 1023]}{_PAIRS[three & 1023]}"
        f"{_PAIRS[four >> 20]}{_PAIRS[four >> 10 & 1023]}{_PAIRS[four & 1023]}"
    )


def _read(text: str, length: int) -> int | None:
    if len(text) != length:
        return None
    try:
        return int(text.encode().translate(_DIGITS), 32)
    except ValueError:
        return None


def _coupon_address(payload: int) -> CouponAddress:
    return CouponAddress(payload >> SEQUENCE_BITS, payload & ((1 << SEQUENCE_BITS) - 1))


def split_code(text: str) -> tuple[str, str] | None:
    """A code's prefix and sealed body, read as people write: any case, dashes or none, O for 0 and I or L for 1."""
    if len(text) > MAX_CODE_LENGTH or not text.isascii():
        return None
    compact = text.upper().replace("-", "").replace(" ", "")
    if not 18 <= len(compact) <= 24:
        return None
    return compact[:-CODE_LENGTH], compact[-CODE_LENGTH:].replace("O", "0").replace("I", "1").replace("L", "1")


def split_written_code(text: str) -> tuple[str, str] | None:
    """A code's prefix and sealed body where its dashes stand as `CodeBook.code` writes them; else None.

    `read_code` reads no other letters than are written, so what was split like this and read is as it was written.
    """
    dashed = text[-DASHED_LENGTH:]
    return (text[:-DASHED_LENGTH], dashed.replace("-", "")) if dashed[::5] == "----" else None


def split_redemption_id(text: str) -> tuple[str, str] | None:
    """A redemption id's prefix and sealed body, or None for other text."""
    parts = text.split("-")
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] == "rd" and len(text) <= MAX_CODE_LENGTH else None
