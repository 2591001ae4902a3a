"""Why: tests say what happens at a campaign's desk (`issue`, `redeem`, `extend`), not how a batch is packed."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from hashlib import blake2b
from itertools import count
from typing import Any, Final

from redis.asyncio import Redis

from service.domain.benefit import Amount
from service.domain.campaign import Campaign, CampaignStatus, user_buckets_for
from service.domain.codes import CouponAddress, RedemptionAddress
from service.domain.coupon import Counters, Coupon
from service.domain.events import BEGINNING, Event, EventId
from service.domain.extension import Terms
from service.domain.money import Money, Rate
from service.domain.outcomes import (
    DeactivateOutcome,
    IssueOutcome,
    QuotaOutcome,
    RedeemOutcome,
    SettleOutcome,
    UnknownCode,
)
from service.domain.validity import FixedValidity
from service.store.catalogue import CampaignLedger, CapBelowIssued, Catalogue, KnownCampaign, Registration
from service.store.coupons import CouponStore, IssueRequest, RedeemRequest, SettleVerb
from service.store.deactivations import DeactivationStore
from service.store.events import EventStore
from service.store.extension_progress import ExtensionProgress
from service.store.extensions import ExtensionRefusal, ExtensionStore
from service.store.imports import ImportStore
from service.store.long_jobs import LongJobs
from service.store.quotas import QuotaStore
from service.store.recounts import Recount, RecountStore
from service.store.scripts import Scripts
from tests.store.ledgers import COUNTERS

CLOCK_KEY: Final = "test:clock"
TURNABLE_CLOCK: Final = f"local function now_ms() return tonumber(redis.call('GET', '{CLOCK_KEY}')) end\n"
SECRET: Final = b"a secret of the tests"
MOST_EVENTS: Final = 100_000
MOST_CHUNKS: Final = 10_000
"""How many chunks of work one campaign of a test can need at the very most."""


def at(text: str) -> int:
    """An instant such as `2026-02-06T07:46+08:00` in milliseconds."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


LAUNCH: Final = at("2026-02-06T07:46+08:00")
EXPIRY: Final = at("2026-02-23T23:59:59.999+08:00")
LATER: Final = at("2026-02-28T23:59:59.999+08:00")
UNLIMITED: Final = Rate(10**9, 10**6)


def a_campaign(**changes: Any) -> Campaign:
    """A running campaign that refuses nobody soon, with whatever a test wants changed."""
    campaign = Campaign(
        id="spring",
        name="Spring",
        status=CampaignStatus.RUNNING,
        version=1,
        benefit=Amount(2500, "CNY"),
        max_coupons=10_000,
        max_coupons_per_user=21,
        budget=Money(10**9, "CNY"),
        issue_window=None,
        validity=FixedValidity("Asia/Shanghai", None, EXPIRY),
        issue_rate=UNLIMITED,
        user_rate=None,
        merchant_rate=None,
        code_prefix="QWEN",
        shards=1,
        user_buckets=1,
        created_at_ms=LAUNCH,
    )
    campaign = replace(campaign, **changes)
    buckets = changes.get("user_buckets") or user_buckets_for(campaign.max_coupons, campaign.shards)
    return replace(campaign, user_buckets=buckets)


async def to_the_end(chunk: Callable[[], Awaitable[bool]]) -> None:
    """Work chunk by chunk until nothing is left."""
    for _ in range(MOST_CHUNKS):
        if not await chunk():
            return
    raise AssertionError("the work has no end")


class Clock:
    """The store's clock, which stands still until the test turns it."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self.now_ms = 0

    async def set(self, now_ms: int) -> None:
        """Turn it to an instant, forwards or backwards."""
        self.now_ms = now_ms
        await self._client.set(CLOCK_KEY, now_ms)

    async def advance(self, by_ms: int) -> None:
        """Turn it by so much, backwards if negative."""
        await self.set(self.now_ms + by_ms)


class Desk:
    """One campaign, asked as a user, a merchant and an operator would ask."""

    def __init__(self, room: "Room", known: KnownCampaign) -> None:
        self._room = room
        self.known = known

    @property
    def campaign(self) -> Campaign:
        """The campaign as it was opened."""
        return self.known.campaign

    def wish(self, user: str, key: str) -> IssueRequest:
        """The request that this user would send under this idempotency key."""
        digest = blake2b(f"{user}\n{key}".encode(), digest_size=8).digest()
        return IssueRequest(user, self.known.place(user)[1], digest)

    async def as_of_layout(self, layout: int) -> None:
        """Lay the shards out as earlier versions did; no coupon must be issued yet.

        0 is without rows, 1 has them, 2 has a ledger of one field as well.
        """
        for state_key in self.known.state_keys:
            config = await self._room.client.hget(state_key, "config")
            assert isinstance(config, bytes)
            await self._room.client.hset(state_key, "config", b"\xc1" * layout + config.lstrip(b"\xc1"))
            if layout < 2:
                await self._room.client.hdel(state_key, "ledger")
                await self._room.client.hset(state_key, mapping=dict.fromkeys(COUNTERS, 0))

    async def issue(self, user: str = "ann", key: str = "first") -> IssueOutcome:
        """One user's request, in a batch of its own."""
        return (await self._room.coupons.issue(self.known, self.known.place(user)[0], [self.wish(user, key)]))[0]

    async def issue_batch(self, wishes: Iterable[tuple[str, str]], shard: int = 0) -> list[IssueOutcome]:
        """Requests as (user, key) in one batch; all users must be of that shard."""
        return await self._room.coupons.issue(self.known, shard, [self.wish(user, key) for user, key in wishes])

    async def redeem(
        self,
        sequence: int = 0,
        order: str = "order",
        merchant: str = "tea house",
        amount: int | None = None,
        hold_ms: int = 0,
        shard: int = 0,
    ) -> RedeemOutcome:
        """One merchant's request, in a batch of its own."""
        request = RedeemRequest(sequence, merchant, order, amount, hold_ms)
        return (await self._room.coupons.redeem(self.known, shard, [request]))[0]

    async def redeem_batch(self, requests: list[RedeemRequest], shard: int = 0) -> list[RedeemOutcome]:
        """Requests of one shard in one batch."""
        return await self._room.coupons.redeem(self.known, shard, requests)

    async def settle(self, verb: SettleVerb, sequence: int = 0, attempt: int = 1, shard: int = 0) -> SettleOutcome:
        """`commit`, `release` or `rollback`."""
        address = RedemptionAddress(CouponAddress(shard, sequence), attempt)
        return await self._room.coupons.settle(self.known, verb, address, "as asked")

    async def deactivate(self, *sequences: int, shard: int = 0) -> DeactivateOutcome:
        """Deactivate coupons in one call, or the first; what came of the last is returned."""
        return (await self.deactivate_all(sequences or (0,), shard))[-1]

    async def deactivate_all(self, sequences: Iterable[int], shard: int = 0) -> list[DeactivateOutcome]:
        """Deactivate coupons in one call."""
        addresses = [CouponAddress(shard, sequence) for sequence in sequences]
        return await self._room.deactivations.deactivate(self.known, addresses, "as asked")

    async def deactivate_user(self, user: str = "ann") -> list[tuple[CouponAddress, DeactivateOutcome]]:
        """Deactivate all that the user holds."""
        return await self._room.deactivations.deactivate_user(self.known, user, "stolen account")

    async def raise_quota(self, user: str = "ann", max_coupons: int = 21) -> QuotaOutcome:
        """Let the user hold so many coupons."""
        return await self._room.quotas.raise_to(self.known, user, max_coupons, "a referral")

    async def coupon(self, sequence: int = 0, shard: int = 0) -> Coupon | UnknownCode:
        """One coupon as it stands now."""
        return await self._room.coupons.coupon(self.known, CouponAddress(shard, sequence))

    async def all_coupons(self) -> list[Coupon]:
        """Every coupon of every shard as it stands now, read one by one."""
        found = []
        for shard in range(self.campaign.shards):
            for sequence in count():
                match await self.coupon(sequence, shard):
                    case Coupon() as coupon:
                        found.append(coupon)
                    case UnknownCode():
                        break
        return found

    async def extend(self, until_ms: int = LATER, **terms: Any) -> ExtensionProgress:
        """Extend the validity of every coupon, or of those in `scope`; the write-through is another step."""
        progress = await self.try_to_extend(until_ms, **terms)
        assert isinstance(progress, ExtensionProgress)
        return progress

    async def try_to_extend(self, until_ms: int = LATER, **terms: Any) -> ExtensionProgress | ExtensionRefusal:
        """The same, where it may be refused."""
        said = Terms(until_ms=until_ms, **{"reason": "as asked", **terms})
        return await self._room.extensions.extend(self.campaign, said)

    async def undo(self, number: int, window_ms: int = 10**12) -> ExtensionProgress | ExtensionRefusal:
        """Undo an extension; the write-through is another step."""
        return await self._room.extensions.undo(self.campaign, number, window_ms, "a mistake", "ada")

    async def write_through(self, number: int) -> ExtensionProgress:
        """Write an extension through to the last coupon."""
        for shard in range(self.campaign.shards):
            await to_the_end(partial(self._room.extensions.write_through, self.campaign, shard, number))
        progress = await self._room.extensions.progress(self.campaign, number)
        assert progress is not None
        return progress

    async def tidy(self) -> None:
        """Free what has lapsed and mark what has expired, to the last chunk."""
        for shard in range(self.campaign.shards):
            await to_the_end(partial(self._room.extensions.lapse, self.campaign, shard))
            await to_the_end(partial(self._room.extensions.expire, self.campaign, shard))

    async def recount(self) -> Recount:
        """Recount every shard to its end, on from where it stands."""
        for shard in range(self.campaign.shards):
            while not (await self._room.recounts.go_on(self.campaign, shard)).ended:
                pass
        found = await self._room.recounts.latest(self.campaign)
        assert found is not None
        return found

    async def change(self, **changes: Any) -> CapBelowIssued | None:
        """Change the campaign as it now is, as an operator would."""
        current = await self._room.catalogue.load(self.campaign.id)
        assert current is not None
        return await self._room.catalogue.update(current, replace(current, version=current.version + 1, **changes))

    async def counters(self) -> Counters:
        """The ledger, summed over the shards; it must always add up."""
        return (await self.ledger()).counters

    async def ledger(self) -> CampaignLedger:
        """The ledger in coupons and in money; both must always add up."""
        current = await self._room.catalogue.load(self.campaign.id)
        assert current is not None
        ledger = await self._room.catalogue.ledger(current)
        assert ledger.counters.conservation_error == ledger.money_conservation_error == 0
        return ledger


class ProcessDied(Exception):
    """What ends a process in the middle of its work."""


class DyingScripts(Scripts):
    """The scripts of a process that dies after so many calls."""

    def __init__(self, client: Redis, calls: int) -> None:
        super().__init__(client, TURNABLE_CLOCK)
        self._calls = calls

    async def run(self, name: str, keys: list[str], *args: str | bytes | int) -> Any:
        """Run a script, or die before it."""
        if self._calls == 0:
            raise ProcessDied
        self._calls -= 1
        return await super().run(name, keys, *args)


class Room:
    """Everything the store room offers, over one client and one turnable clock."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.clock = Clock(client)
        self.scripts = Scripts(client, TURNABLE_CLOCK)
        self.catalogue = Catalogue(client, self.scripts, SECRET)
        self.seed = b"a seed of the tests"
        self.coupons = CouponStore(self.scripts, lambda: self.seed)
        self.deactivations = DeactivationStore(self.scripts)
        self.quotas = QuotaStore(self.scripts)
        self.extensions = ExtensionStore(self.scripts)
        self.long_jobs = LongJobs(client, self.scripts)
        self.imports = ImportStore(client, self.scripts)
        self.recounts = RecountStore(client, self.scripts)

    async def open(self, **changes: Any) -> Desk:
        """Register a campaign and sit down at its desk."""
        campaign = a_campaign(**changes)
        assert await self.catalogue.register(campaign) is Registration.REGISTERED
        known = await self.catalogue.find(campaign.id)
        assert known is not None
        return Desk(self, known)

    async def everything(self) -> tuple[int, dict[bytes, Any]]:
        """How many writes there have been, and all keys with their contents, byte for byte.

        A hash is told by its fields: where they lie may move while the store looks at them.
        """
        facts = await self.client.info("persistence")
        return facts["rdb_changes_since_last_save"], {
            name: await (self.client.hgetall if await self.client.type(name) == b"hash" else self.client.dump)(name)
            for name in await self.key_names()
        }

    async def key_names(self) -> list[bytes]:
        """The names of all keys."""
        names: list[bytes] = await self.client.keys("*")  # type: ignore[assignment]  # text only where asked for
        return sorted(names)

    async def events(self, campaign_id: str = "spring", shard: int = 0, after: EventId = BEGINNING) -> list[Event]:
        """The events of one shard of a campaign."""
        return await EventStore(self.client).read_shard(campaign_id, shard, after, MOST_EVENTS)
