"""Quotas: how many coupons one user may hold where he has earned more than the campaign's common cap."""

from service.domain.outcomes import QuotaOutcome, QuotaRaised, QuotaTooHigh, UnknownCampaign
from service.store.catalogue import KnownCampaign
from service.store.scripts import Scripts


class QuotaStore:
    """Raises quotas. Its method raises StoreError when the store does not answer."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def raise_to(self, campaign: KnownCampaign, user_id: str, max_coupons: int, reason: str) -> QuotaOutcome:
        """Let the user hold `max_coupons` coupons; he keeps what he may hold already, so that repeating is harmless."""
        shard, bucket = campaign.place(user_id)
        state_key = campaign.state_keys[shard]
        match await self._scripts.run("raise_quota", [state_key], bucket, user_id, max_coupons, reason):
            case [b"raised", quota]:
                return QuotaRaised(quota)
            case [b"quota_too_high", max_quota]:
                return QuotaTooHigh(max_quota)
            case _:
                return UnknownCampaign()
