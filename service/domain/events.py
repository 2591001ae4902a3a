"""Events: what has happened to a campaign's coupons, in the order in which the store decided it.

One event may concern many coupons, since a batch is one. It names them by their sequences; their codes are told only to
who shows an API key, and to a webhook that such a caller registered.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, NamedTuple, Self

from service.domain.codes import CodeBook
from service.domain.coupon import CouponStatus

COUPONS_PER_PART: Final = 512
"""How many coupons one message names at most; an event that concerns more is told in several."""
LONGEST_CURSOR: Final = 4_096
OF_ONE_COUPON: Final = ("coupons", "amounts", "redemptions", "attempt")
"""The data that speak of single coupons, and so are told in parts."""

STATUS_AFTER: Final[Mapping[str, CouponStatus | None]] = {
    "campaign.extended": None,
    "campaign.extension_undone": None,
    "coupon.deactivated": CouponStatus.DEACTIVATED,
    "coupon.expired": CouponStatus.EXPIRED,
    "coupon.extended": None,
    "coupon.extension_undone": None,
    "coupon.issued": CouponStatus.ISSUED,
    "coupon.lapsed": CouponStatus.ISSUED,
    "coupon.redeemed": CouponStatus.REDEEMED,
    "coupon.released": CouponStatus.ISSUED,
    "coupon.reserved": CouponStatus.RESERVED,
    "coupon.revived": CouponStatus.ISSUED,
    "coupon.rolled_back": CouponStatus.ISSUED,
    "quota.raised": None,
}
"""Every type of event, and what the coupons it names have become; None where their status stays."""

_EVENT_ID: Final = re.compile(r"(\d{1,15})-(\d{1,15})")


class EventId(NamedTuple):
    """Where an event stands in its shard: the store's milliseconds, and a number within them."""

    at_ms: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The id that `str` has written. Raises ValueError."""
        found = _EVENT_ID.fullmatch(text)
        if found is None or not text.isascii():
            raise ValueError("not the id of an event")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.at_ms}-{self.number}"


BEGINNING: Final = EventId(0, 0)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of one shard. `data["coupons"]` names its coupons in order, in runs: first, count, first, count, …"""

    shard: int
    id: EventId
    type: str
    data: Mapping[str, Any]

    @property
    def coupons(self) -> Iterator[int]:
        """The sequences of the coupons, in order."""
        runs: Sequence[int] = self.data.get("coupons", ())
        for first, count in zip(runs[::2], runs[1::2], strict=True):
            yield from range(first, first + count)

    def to_json(self) -> str:
        """The event without its shard, as a day file keeps it."""
        told = {"id": str(self.id), "at": moment(self.id.at_ms), "type": self.type, "data": self.data}
        return json.dumps(told, separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, shard: int, line: str | bytes) -> Self:
        """The event that `to_json` has written. Raises ValueError."""
        told = json.loads(line)
        try:
            return cls(shard, EventId.parse(told["id"]), told["type"], told["data"])
        except (KeyError, TypeError) as error:
            raise ValueError("not an event") from error


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far somebody has read: the last event of every shard."""

    ids: tuple[EventId, ...]

    @classmethod
    def parse(cls, text: str, shards: int) -> Self:
        """The cursor that `str` has written, for a campaign of so many shards. Raises ValueError."""
        if len(text) > LONGEST_CURSOR or not text.isascii():
            raise ValueError("not a cursor of this campaign")
        padded = text + "=" * (-len(text) % 4)
        parts = urlsafe_b64decode(padded).decode("ascii").split(".")
        cursor = cls(tuple(EventId.parse(part) for part in parts))
        if len(parts) != shards or str(cursor) != text:
            raise ValueError("not a cursor of this campaign")
        return cursor

    def after(self, event: Event) -> Self:
        """The cursor of somebody who has read this event too."""
        ids = list(self.ids)
        ids[event.shard] = event.id
        return type(self)(tuple(ids))

    def __str__(self) -> str:
        return urlsafe_b64encode(".".join(map(str, self.ids)).encode()).decode().rstrip("=")


def parts_of(event: Event, codes: CodeBook, campaign_id: str) -> Iterator[dict[str, Any]]:
    """The event's data with the coupons' codes in place of their sequences, COUPONS_PER_PART at a time."""
    told = {name: value for name, value in event.data.items() if name not in OF_ONE_COUPON}
    if "extension" in told:
        told["extension_id"] = f"{campaign_id}.{told.pop('extension')}"
    if "until_ms" in told:
        told["expires_at"] = moment(told.pop("until_ms"))
    if "coupons" not in event.data:
        yield told
        return
    coupons, amounts = event.coupons, iter(event.data.get("amounts", ()))
    redemptions = iter(_redemptions(event, codes))
    while sequences := list(islice(coupons, COUPONS_PER_PART)):
        part = told | {"codes": [codes.code(event.shard, sequence) for sequence in sequences]}
        if drawn := list(islice(amounts, len(sequences))):
            part["amounts"] = drawn
        if redeemed := list(islice(redemptions, len(sequences))):
            part["redemptions"] = redeemed
        yield part


def _redemptions(event: Event, codes: CodeBook) -> Iterator[dict[str, Any]]:
    """The redemptions that an event tells of, one for each coupon."""

    def redemption_id(sequence: int, attempt: int) -> str:
        return codes.redemption_id(event.shard, sequence, attempt)

    if "attempt" in event.data:
        for sequence in event.coupons:
            yield {"id": redemption_id(sequence, event.data["attempt"])}
    for sequence, told in zip(event.coupons, event.data.get("redemptions", ()), strict=False):
        attempt, merchant_id, order_id, discount_amount = told
        yield {
            "id": redemption_id(sequence, attempt),
            "merchant_id": merchant_id,
            "order_id": order_id,
            "discount_amount": discount_amount,
        }


def moment(instant_ms: int) -> str:
    """The instant in RFC 3339, in UTC, to the millisecond."""
    seconds, rest_ms = divmod(instant_ms, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest_ms * 1000).isoformat(timespec="milliseconds")
