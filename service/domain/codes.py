"""Codes that prove themselves: computed from a sequence number, never generated in bulk and never stored.

A code seals its payload in the manner of SIV (Rogaway and Shrimpton, 2006): a keyed MAC of the payload comes first,
then the payload masked with a keystream derived from that MAC. Whoever lacks the key can neither read the sequence
nor make a code that opens, so a guessed or mistyped code is refused without asking the store.
"""

import hmac
from dataclasses import dataclass
from hashlib import blake2s
from typing import Final

SHARD_BITS: Final = 6
SEQUENCE_BITS: Final = 34
MAX_CODE_LENGTH: Final = 64
"""The longest text that is looked at as a code at all; a written one has at most 28 characters."""

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = [high + low for high in _ALPHABET for low in _ALPHABET]
_VALUES: Final = {pair: value for value, pair in enumerate(_PAIRS)}
_READ: Final = str.maketrans("OIL", "011", "- ")


@dataclass(frozen=True, slots=True)
class CouponAddress:
    """Where a coupon lies: its campaign's shard and its number there."""

    shard: int
    sequence: int


@dataclass(frozen=True, slots=True)
class RedemptionAddress:
    """Where a redemption lies: its coupon, and the how-manieth attempt on it this one is."""

    coupon: CouponAddress
    attempt: int


class Seal:
    """Seals fixed-size payloads under one key; `person` keeps the uses of a key apart."""

    def __init__(self, key: bytes, person: bytes, payload_bytes: int, mac_bytes: int) -> None:
        self._key = key
        self._mac_person = person + b"-m"
        self._mask_person = person + b"-k"
        self._payload_bytes = payload_bytes
        self._mac_bytes = mac_bytes
        self.length = (payload_bytes + mac_bytes) * 8 // 5

    def close(self, payload: int) -> str:
        """The payload as Crockford base32, `length` characters."""
        raw = payload.to_bytes(self._payload_bytes)
        mac = self._mac(raw)
        word = (int.from_bytes(mac) << 8 * self._payload_bytes) | (payload ^ self._mask(mac))
        return "".join([_PAIRS[word >> shift & 1023] for shift in range(self.length * 5 - 10, -1, -10)])

    def open(self, text: str) -> int | None:
        """The payload, or None for text that this key did not seal."""
        if len(text) != self.length:
            return None
        word = 0
        for position in range(0, self.length, 2):
            value = _VALUES.get(text[position : position + 2])
            if value is None:
                return None
            word = word << 10 | value
        mac = (word >> 8 * self._payload_bytes).to_bytes(self._mac_bytes)
        payload = (word & ((1 << 8 * self._payload_bytes) - 1)) ^ self._mask(mac)
        expected = self._mac(payload.to_bytes(self._payload_bytes))
        return payload if hmac.compare_digest(mac, expected) else None

    def _mac(self, raw: bytes) -> bytes:
        return blake2s(raw, digest_size=self._mac_bytes, key=self._key, person=self._mac_person).digest()

    def _mask(self, mac: bytes) -> int:
        keystream = blake2s(mac, digest_size=self._payload_bytes, key=self._key, person=self._mask_person)
        return int.from_bytes(keystream.digest())


class CodeBook:
    """Reads and writes the coupon codes and redemption ids of one campaign."""

    def __init__(self, secret: bytes, campaign_id: str, prefix: str) -> None:
        key = blake2s(campaign_id.encode(), key=secret, person=b"tg-codes").digest()
        self._prefix = prefix
        self._coupons = Seal(key, b"coupon", payload_bytes=5, mac_bytes=5)
        self._redemptions = Seal(key, b"redeem", payload_bytes=7, mac_bytes=8)

    def code(self, shard: int, sequence: int) -> str:
        """The coupon's code: the campaign's prefix and four groups of four."""
        sealed = self._coupons.close(shard << SEQUENCE_BITS | sequence)
        return f"{self._prefix}-{sealed[:4]}-{sealed[4:8]}-{sealed[8:12]}-{sealed[12:]}"

    def read_code(self, body: str) -> CouponAddress | None:
        """Where the coupon of a code lies; `body` is the second half of `split_code`. None for a forged code."""
        payload = self._coupons.open(body)
        return None if payload is None else _coupon_address(payload)

    def redemption_id(self, address: RedemptionAddress) -> str:
        """The redemption's id: it names its campaign by prefix and tells nothing about the coupon's code."""
        coupon = address.coupon.shard << SEQUENCE_BITS | address.coupon.sequence
        return f"rd-{self._prefix}-{self._redemptions.close(coupon << 16 | address.attempt)}"

    def read_redemption_id(self, body: str) -> RedemptionAddress | None:
        """Where a redemption lies, or None for an id that was never given out."""
        payload = self._redemptions.open(body)
        return None if payload is None else RedemptionAddress(_coupon_address(payload >> 16), payload & 0xFFFF)


def _coupon_address(payload: int) -> CouponAddress:
    return CouponAddress(payload >> SEQUENCE_BITS, payload & ((1 << SEQUENCE_BITS) - 1))


def split_code(text: str) -> tuple[str, str] | None:
    """A code's prefix and sealed body, read as people write: any case, dashes or none, O for 0 and I or L for 1."""
    if len(text) > MAX_CODE_LENGTH or not text.isascii():
        return None
    compact = text.upper().translate(str.maketrans("", "", "- "))
    return (compact[:-16], compact[-16:].translate(_READ)) if 18 <= len(compact) <= 24 else None


def split_redemption_id(text: str) -> tuple[str, str] | None:
    """A redemption id's prefix and sealed body, or None for other text."""
    parts = text.split("-")
    return (parts[1], parts[2]) if len(parts) == 3 and parts[0] == "rd" and len(text) <= MAX_CODE_LENGTH else None
