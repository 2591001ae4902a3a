"""Coupons and redemptions as JSON bytes, from one template a campaign, on both lanes alike.

Every id on the wire is of a few safe characters, so nothing here needs escaping.
"""

import json
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from service.api.benefits import coupon_benefit_body
from service.domain.benefit import Benefit
from service.domain.coupon import Coupon, Redemption, RedemptionStatus
from service.domain.outcomes import Issued, Replayed
from service.store.catalogue import KnownCampaign

SECOND_LENGTH: Final = len("2026-02-28T23:59:59")
MOST_SECONDS: Final = 4096
"""So many seconds are kept as text: whoever repeats comes from any of a few thousand."""
_MILLISECONDS: Final = [f".{milliseconds:03d}" for milliseconds in range(1000)]


@lru_cache(maxsize=MOST_SECONDS)
def _second_text(instant_s: int, timezone: str) -> tuple[str, str]:
    """The second in RFC 3339, and the zone's offset then."""
    text = datetime.fromtimestamp(instant_s, UTC).astimezone(ZoneInfo(timezone)).isoformat()
    return text[:SECOND_LENGTH], text[SECOND_LENGTH:]


def moment_text(instant_ms: int, timezone: str) -> str:
    """The instant in RFC 3339 with the zone's offset, to the millisecond."""
    second, offset = _second_text(instant_ms // 1000, timezone)
    return f"{second}{_MILLISECONDS[instant_ms % 1000]}{offset}"


@lru_cache(maxsize=MOST_SECONDS)
def _around_milliseconds(issued_at_s: int, starts_at_s: int, expires_at_s: int, timezone: str) -> tuple[str, ...]:
    """A coupon's times but for their milliseconds: what stands before, between and after them."""
    issued_at, issued_offset = _second_text(issued_at_s, timezone)
    starts_at, starts_offset = _second_text(starts_at_s, timezone)
    expires_at, expires_offset = _second_text(expires_at_s, timezone)
    return (
        f'"issued_at":"{issued_at}',
        f'{issued_offset}","starts_at":"{starts_at}',
        f'{starts_offset}","expires_at":"{expires_at}',
        f'{expires_offset}"',
    )


def _times_json(issued_at_ms: int, starts_at_ms: int, expires_at_ms: int, timezone: str) -> str:
    """A coupon's times. Those who repeat share seconds, but hardly ever milliseconds."""
    issued_at, starts_at, expires_at, end = _around_milliseconds(
        issued_at_ms // 1000, starts_at_ms // 1000, expires_at_ms // 1000, timezone
    )
    return (
        f"{issued_at}{_MILLISECONDS[issued_at_ms % 1000]}{starts_at}{_MILLISECONDS[starts_at_ms % 1000]}"
        f"{expires_at}{_MILLISECONDS[expires_at_ms % 1000]}{end}"
    )


def _benefit_json(benefit: Benefit, drawn_amount: int | None) -> str:
    return json.dumps(coupon_benefit_body(benefit, drawn_amount), separators=(",", ":"))


class CampaignSpelling:
    """Writes the coupons and redemptions of one campaign, as it was `known` when this was made."""

    def __init__(self, known: KnownCampaign) -> None:
        self.known = known
        campaign = known.campaign
        self._codes = known.codes
        self._timezone = campaign.validity.timezone
        self._campaign_id = campaign.id
        self._benefit = campaign.benefit
        self._benefit_json = _benefit_json(campaign.benefit, None)
        self._times_ms = (0, 0, 0)
        self._times_json = _times_json(0, 0, 0, self._timezone)
        self._at_ms = 0
        self._at = moment_text(0, self._timezone)

    def coupon(self, coupon: Coupon) -> bytes:
        """The coupon as it stands."""
        return self._written(coupon.shard, coupon.user_id, coupon.status, coupon)

    def issued(self, shard: int, user_id: str, outcome: Issued | Replayed) -> bytes:
        """The coupon as it was issued."""
        return self._written(shard, user_id, "issued", outcome)

    def _written(self, shard: int, user_id: str, status: str, coupon: Coupon | Issued | Replayed) -> bytes:
        # All coupons of a batch share their times.
        times_ms = coupon.issued_at_ms, coupon.starts_at_ms, coupon.expires_at_ms
        if times_ms != self._times_ms:
            self._times_ms, self._times_json = times_ms, _times_json(*times_ms, self._timezone)
        drawn_amount = coupon.drawn_amount
        benefit = self._benefit_json if drawn_amount is None else _benefit_json(self._benefit, drawn_amount)
        return (
            f'{{"code":"{self._codes.code(shard, coupon.sequence)}","campaign_id":"{self._campaign_id}",'
            f'"user_id":"{user_id}","status":"{status}","benefit":{benefit},{self._times_json}}}'
        ).encode()

    def redemption(self, redemption: Redemption, code: str | None = None) -> bytes:
        """The redemption as it stands; `expires_at` is told while it is reserved. `code` spares whoever has it."""
        shard, sequence = redemption.shard, redemption.sequence
        # All redemptions of a batch were made at one moment.
        if redemption.at_ms != self._at_ms:
            self._at_ms, self._at = redemption.at_ms, moment_text(redemption.at_ms, self._timezone)
        expires_at, hold_ends = "null", redemption.hold_expires_at_ms
        if hold_ends and redemption.status is RedemptionStatus.RESERVED:
            expires_at = f'"{moment_text(hold_ends, self._timezone)}"'
        # !s takes an enumeration's text as it is, which its own way of formatting does in three times the time.
        return (
            f'{{"id":"{self._codes.redemption_id(shard, sequence, redemption.attempt)}",'
            f'"code":"{code or self._codes.code(shard, sequence)}",'
            f'"merchant_id":"{redemption.merchant_id}","order_id":"{redemption.order_id}",'
            f'"status":"{redemption.status!s}",'
            f'"discount_amount":{redemption.discount_amount},"at":"{self._at}",'
            f'"expires_at":{expires_at}}}'
        ).encode()
