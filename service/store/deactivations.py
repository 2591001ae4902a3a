"""Deactivations: coupons that are taken out of use, one, some or all of a user's, and whose money returns."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgpack

from service.domain.codes import CouponAddress
from service.domain.outcomes import (
    AlreadyRedeemed,
    CouponDeactivated,
    DeactivateOutcome,
    Expired,
    ReservedElsewhere,
    UnknownCode,
)
from service.store.catalogue import KnownCampaign
from service.store.coupons import coupon_of
from service.store.scripts import Scripts


class DeactivationStore:
    """Deactivates coupons that are free. Every method raises StoreError when the store does not answer.

    What was deactivated until then stays so, and deactivating it again is harmless.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def deactivate(
        self, campaign: KnownCampaign, addresses: Sequence[CouponAddress], reason: str
    ) -> list[DeactivateOutcome]:
        """Deactivate these coupons, shard by shard; the outcomes stand in the order of the addresses."""
        by_shard: defaultdict[int, list[int]] = defaultdict(list)
        for address in addresses:
            by_shard[address.shard].append(address.sequence)
        outcomes: dict[CouponAddress, DeactivateOutcome] = {}
        for shard, sequences in by_shard.items():
            reply = await self._scripts.run(
                "deactivate", [campaign.state_keys[shard]], msgpack.packb(sequences), reason
            ) or [None] * len(sequences)
            for sequence, result in zip(sequences, reply, strict=True):
                address = CouponAddress(shard, sequence)
                outcomes[address] = _outcome(address, result)
        return [outcomes[address] for address in addresses]

    async def deactivate_user(
        self, campaign: KnownCampaign, user_id: str, reason: str
    ) -> list[tuple[CouponAddress, DeactivateOutcome]]:
        """Deactivate all of the user's coupons that are free, in one step, the oldest first."""
        shard, bucket = campaign.place(user_id)
        reply = await self._scripts.run("deactivate_user", [campaign.state_keys[shard]], bucket, user_id, reason) or []
        addresses = [CouponAddress(shard, sequence) for sequence in reply[::2]]
        return [(address, _outcome(address, result)) for address, result in zip(addresses, reply[1::2], strict=True)]


def _outcome(address: CouponAddress, result: Any) -> DeactivateOutcome:
    match result:
        case [b"deactivated", *described]:
            return CouponDeactivated(coupon_of(address, described))
        case [b"already_redeemed"]:
            return AlreadyRedeemed()
        case [b"expired", at_ms]:
            return Expired(at_ms)
        case [b"reserved_elsewhere", retry_after_ms]:
            return ReservedElsewhere(retry_after_ms)
        case _:
            return UnknownCode()
