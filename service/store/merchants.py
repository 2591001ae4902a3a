"""What merchants say of themselves, kept beside each shard's coupons, where redemption sees it in the same step."""

from service.domain.campaign import Campaign
from service.domain.merchants import MAX_BUSY_MERCHANTS, Busy
from service.store import keys
from service.store.scripts import Scripts


class MerchantStore:
    """The words of merchants. Every method raises StoreError when the store does not answer; then repeat it.

    The first shard is told last and asked first, so that what it says holds in all of them.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def say_busy(self, campaign: Campaign, merchant_id: str, until_ms: int, reason: str) -> bool:
        """Redeem nothing of the campaign for the merchant before that instant; False if too many are busy already."""
        for shard in reversed(range(campaign.shards)):
            state_key = keys.state_key(campaign.id, shard)
            word = await self._scripts.run("say_busy", [state_key], merchant_id, until_ms, reason, MAX_BUSY_MERCHANTS)
            if word != b"busy":
                return False
        return True

    async def take_back(self, campaign: Campaign, merchant_id: str) -> None:
        """Redeem for the merchant again."""
        for shard in reversed(range(campaign.shards)):
            await self._scripts.run("take_back_busy", [keys.state_key(campaign.id, shard)], merchant_id)

    async def busy(self, campaign: Campaign, merchant_id: str) -> Busy | None:
        """What the merchant has said, if it still holds."""
        found = await self._scripts.run("read_busy", [keys.state_key(campaign.id, 0)], merchant_id)
        return None if found is None else Busy(campaign.id, found[0], found[1].decode())
