"""The campaigns: their definitions, which are the truth, and the shards' configurations, which follow them.

A definition changes by compare-and-set on its version, then each shard is given the new configuration; a shard takes
only a newer version. If a process dies in between, `align` brings the shards along.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final
from zlib import crc32

from pydantic import TypeAdapter
from redis.asyncio import Redis

from service.domain.benefit import RedEnvelope
from service.domain.campaign import MAX_CAMPAIGNS, MAX_ID_LENGTH, Campaign
from service.domain.codes import MAX_CODE_LENGTH, CodeBook, CouponAddress, split_code
from service.domain.coupon import Amounts, Counters
from service.domain.imported_codes import ImportedCodeBook, ImportedCodes
from service.store import keys
from service.store.configuration import pack_configuration
from service.store.imports import ImportStore
from service.store.scripts import Scripts, store_errors

UNKNOWN_FOR_S: Final = 1.0
"""How long a process remembers that a campaign does not exist, so that a stampede on a wrong id stays cheap."""
MAX_UNKNOWN: Final = 10_000
MICRO: Final = 1_000_000
COUNTERS: Final = len(fields(Counters))

_DEFINITION: Final = TypeAdapter(Campaign)


class Registration(StrEnum):
    """What came of registering a campaign."""

    REGISTERED = "registered"
    CAMPAIGN_EXISTS = "campaign_exists"
    CODE_PREFIX_TAKEN = "code_prefix_taken"
    TOO_MANY_CAMPAIGNS = "too_many_campaigns"


@dataclass(frozen=True, slots=True)
class CapBelowIssued:
    """The new `field` is lower than what was given out already."""

    field: str
    given_out: int


class Stale(Exception):
    """The campaign has changed since it was read."""


@dataclass(frozen=True, slots=True)
class CampaignLedger:
    """A campaign with its live figures, summed over its shards."""

    campaign: Campaign
    counters: Counters
    amounts: Amounts
    bucket_tokens: float
    extensions: int
    now_ms: int

    @property
    def remaining(self) -> int:
        """Coupons not issued yet."""
        return self.campaign.max_coupons - self.counters.issued

    @property
    def budget_remaining(self) -> int | None:
        """Money that no coupon claims, in minor units; None without a budget."""
        budget = self.campaign.budget
        return None if budget is None else budget.amount - self.counters.budget_committed

    @property
    def money_conservation_error(self) -> int:
        """How far the money is from adding up, in minor units: 0, always."""
        return self.amounts.conservation_error(self.counters.budget_committed)


class KnownCampaign:
    """What never changes about a campaign, kept in the process so that the hot path asks nobody.

    `campaign` is as it was when it was read: its status, caps and rates may have changed since, and only the
    store's answer counts.
    """

    def __init__(self, campaign: Campaign, secret: bytes, imported: ImportedCodes | None = None) -> None:
        self.campaign = campaign
        named = (secret, campaign.id, campaign.code_prefix)
        self.codes = CodeBook(*named) if imported is None else ImportedCodeBook(*named, imported)
        self._shards, self._user_buckets = campaign.shards, campaign.user_buckets
        self.state_keys = [keys.state_key(campaign.id, shard) for shard in range(campaign.shards)]

    def place(self, user_id: str) -> tuple[int, int]:
        """The user's shard and bucket; always the same, so that caps and idempotency are exact.

        CRC-32 spreads well enough, and whoever chose ids to share a bucket would only make it less compact.
        """
        bucket, shard = divmod(crc32(user_id.encode()), self._shards)
        return shard, bucket % self._user_buckets


class Catalogue:
    """Finds, registers and changes campaigns. Its methods raise StoreError when the store does not answer."""

    def __init__(self, client: Redis, scripts: Scripts, code_secret: bytes) -> None:
        self._client = client
        self._scripts = scripts
        self._secret = code_secret
        self._by_id: dict[str, KnownCampaign] = {}
        self._by_prefix: dict[str, KnownCampaign] = {}
        self._imports = ImportStore(client, scripts)
        self._imported_prefixes: tuple[str, ...] = ()
        self._imported_prefixes_until = 0.0
        self._unknown_until: dict[tuple[str, str], float] = {}
        self._looking: dict[tuple[str, str], asyncio.Task[KnownCampaign | None]] = {}

    def known(self, campaign_id: str) -> KnownCampaign | None:
        """The campaign, if this process has met it: the hot path's look-up, without a wait."""
        return self._by_id.get(campaign_id)

    def known_by_prefix(self, prefix: str) -> KnownCampaign | None:
        """The campaign whose codes begin with that prefix, if this process has met it."""
        return self._by_prefix.get(prefix)

    async def find(self, campaign_id: str) -> KnownCampaign | None:
        """The campaign of that id, from memory where possible; at first sight its shards are brought along."""
        if (known := self._by_id.get(campaign_id)) is not None:
            return known
        if len(campaign_id) > MAX_ID_LENGTH or self._is_unknown("id", campaign_id):
            return None
        return await self._look_once("id", campaign_id, self._look_up)

    async def find_by_prefix(self, prefix: str) -> KnownCampaign | None:
        """The campaign whose codes begin with that prefix, from memory where possible."""
        if (known := self._by_prefix.get(prefix)) is not None:
            return known
        if self._is_unknown("prefix", prefix):
            return None
        return await self._look_once("prefix", prefix, self._look_up_by_prefix)

    async def find_coupon(self, code: str) -> tuple[KnownCampaign, CouponAddress] | None:
        """The campaign of a coupon's code and where the coupon lies; None for one that was never given out."""
        split = split_code(code)
        known = await self.find_by_prefix(split[0]) if split else None
        address = known.codes.read_code(split[1]) if split and known else None
        if known is not None and address is not None:
            return known, address
        return await self._find_imported(code) if len(code) <= MAX_CODE_LENGTH and code.isascii() else None

    def may_be_imported(self, code: str) -> bool:
        """Whether `find_coupon` may find such a code though it is no computed one; a guess that errs on that side."""
        is_known = self._imported_prefixes_until > time.monotonic()
        return not is_known or code.startswith(self._imported_prefixes)

    async def note_imported(self, campaign: Campaign) -> str | None:
        """Have codes that begin with the campaign's prefix looked for among those that were imported.

        Where a code could begin with another such prefix as well, nothing is noted and that one is returned.
        """
        overlapping = await self._scripts.run("note_imported", [keys.IMPORTED_PREFIXES], campaign.code_prefix)
        return None if overlapping is None else str(overlapping.decode())

    async def load(self, campaign_id: str) -> Campaign | None:
        """The campaign's definition as it now is."""
        with store_errors():
            definition = await self._client.hget(keys.CAMPAIGNS, campaign_id)
        return None if definition is None else _DEFINITION.validate_json(definition)

    async def load_each(self, campaign_ids: Sequence[str]) -> Sequence[Campaign]:
        """The definitions of those of the campaigns that exist, in one call."""
        with store_errors():
            definitions = await self._client.hmget(keys.CAMPAIGNS, [*campaign_ids])
        return [_DEFINITION.validate_json(definition) for definition in definitions if definition is not None]

    async def list(self) -> list[Campaign]:
        """All campaigns, the newest first."""
        with store_errors():
            definitions = await self._client.hvals(keys.CAMPAIGNS)
        campaigns = [_DEFINITION.validate_json(definition) for definition in definitions]
        return sorted(campaigns, key=lambda campaign: (-campaign.created_at_ms, campaign.id))

    async def register(self, campaign: Campaign) -> Registration:
        """Make the campaign known, if its id and code prefix are free, and give its shards their configuration."""
        definition = _DEFINITION.dump_json(campaign)
        answer = await self._scripts.run(
            "register",
            [keys.CAMPAIGNS, keys.PREFIXES],
            campaign.id,
            campaign.code_prefix,
            definition,
            MAX_CAMPAIGNS,
        )
        registration = Registration(answer.decode())
        if registration is Registration.REGISTERED:
            self._unknown_until.clear()
            await self.align(campaign)
        return registration

    async def update(self, old: Campaign, new: Campaign) -> CapBelowIssued | None:
        """Put the new version in the old one's place. Raises Stale when the old one is not the one in force.

        A shard refuses a cap below what it has given out; then the old values come back as a version of their own.
        Where caps become lower and anything else changes too, they do so in a version of their own before it, so that
        nothing of a change that is refused holds in any shard.
        """
        lowered = _with_lower_caps(old, new)
        if lowered in (new, replace(old, version=new.version)):
            return await self._change(old, new)
        refused = await self._change(old, lowered)
        return refused or await self._change(lowered, replace(new, version=lowered.version + 1))

    async def align(self, campaign: Campaign) -> CapBelowIssued | None:
        """Give every shard the campaign's configuration; a shard that has this version or a newer one keeps it.

        A version that a shard refuses is taken back, here and not by whoever made it, since that process may have died.
        """
        refused = await self._configure(campaign)
        if refused is not None:
            await self._take_back(campaign)
        return refused

    async def ledger(self, campaign: Campaign) -> CampaignLedger:
        """The campaign's live figures; shards that a crash left behind are brought along first."""
        states = [await self._read_state(campaign, shard) for shard in range(campaign.shards)]
        times, _, levels, extensions, *figures = zip(*states, strict=True)
        sums = [sum(figure) for figure in figures]
        counters = Counters(*sums[:COUNTERS])
        return CampaignLedger(
            campaign,
            counters,
            _amounts(campaign, counters, sums[COUNTERS:]),
            bucket_tokens=sum(levels) / MICRO,
            extensions=max(extensions),
            now_ms=max(times),
        )

    async def now_ms(self) -> int:
        """What time it is for the store: the only time that counts."""
        return int(await self._scripts.run("now", []))

    async def store_memory(self) -> tuple[int, int]:
        """The bytes that the store uses, and how many it may use; 0 where it may use any number."""
        with store_errors():
            memory = await self._client.info("memory")
        return memory["used_memory"], memory["maxmemory"]

    async def _read_state(self, campaign: Campaign, shard: int) -> Sequence[int]:
        state_key = keys.state_key(campaign.id, shard)
        state: Sequence[int] | None = await self._scripts.run("read_state", [state_key])
        if state is None or state[1] < campaign.version:
            await self.align(campaign)
            state = await self._scripts.run("read_state", [state_key])
        assert state is not None
        return state

    async def _change(self, old: Campaign, new: Campaign) -> CapBelowIssued | None:
        if await self.align(old) is not None:
            raise Stale(f"version {old.version} of campaign {old.id} was refused")
        await self._replace(old, new)
        refused = await self.align(new)
        if refused is None and await self.load(new.id) != new:
            raise Stale(f"campaign {new.id} was changed at the same time")
        return refused

    async def _configure(self, campaign: Campaign) -> CapBelowIssued | None:
        for shard in range(campaign.shards):
            state_key = keys.state_key(campaign.id, shard)
            word, *given_out = await self._scripts.run("configure", [state_key], pack_configuration(campaign, shard))
            if word != b"configured":
                return CapBelowIssued("budget" if word == b"budget_below_committed" else "max_coupons", given_out[0])
        return None

    async def _replace(self, old: Campaign, new: Campaign) -> None:
        definition = _DEFINITION.dump_json(new)
        update_keys = [keys.CAMPAIGNS, keys.PREVIOUS]
        if await self._scripts.run("update", update_keys, new.id, old.version, definition) != b"updated":
            raise Stale(f"campaign {new.id} is no longer at version {old.version}")

    async def _take_back(self, refused: Campaign) -> None:
        """Nothing but caps became lower in what was refused, so no shard refuses what it had before."""
        with store_errors():
            definition = await self._client.hget(keys.PREVIOUS, refused.id)
        assert definition is not None
        restored = replace(_DEFINITION.validate_json(definition), version=refused.version + 1)
        with suppress(Stale):
            await self._replace(refused, restored)
            await self._configure(restored)

    async def _look_once(
        self, kind: str, name: str, look_up: Callable[[str], Coroutine[None, None, KnownCampaign | None]]
    ) -> KnownCampaign | None:
        """Ask the store once, however many meet a campaign in the same moment that this process has not seen."""
        task = self._looking.get((kind, name))
        if task is None:
            task = self._looking[kind, name] = asyncio.create_task(look_up(name))
            task.add_done_callback(lambda _task: self._looking.pop((kind, name)))
        return await asyncio.shield(task)

    async def _look_up(self, campaign_id: str) -> KnownCampaign | None:
        campaign = await self.load(campaign_id)
        if campaign is None:
            self._remember_unknown("id", campaign_id)
            return None
        await self.align(campaign)
        codes = campaign.imported_codes
        imported = None if codes is None else await self._imports.load(campaign_id, codes)
        known = KnownCampaign(campaign, self._secret, imported)
        if codes == 0:
            return known
        self._by_id[campaign_id] = self._by_prefix[campaign.code_prefix] = known
        return known

    async def _look_up_by_prefix(self, prefix: str) -> KnownCampaign | None:
        with store_errors():
            # Text comes only from a client that is told to decode, and ours is not.
            campaign_id: bytes | None = await self._client.hget(keys.PREFIXES, prefix)  # type: ignore[assignment]
        if campaign_id is None:
            self._remember_unknown("prefix", prefix)
            return None
        return await self.find(campaign_id.decode())

    async def _find_imported(self, code: str) -> tuple[KnownCampaign, CouponAddress] | None:
        if self._imported_prefixes_until <= time.monotonic():
            with store_errors():
                prefixes: Any = await self._client.smembers(keys.IMPORTED_PREFIXES)
            self._imported_prefixes = tuple(prefix.decode() for prefix in prefixes)
            self._imported_prefixes_until = time.monotonic() + UNKNOWN_FOR_S
        for prefix in self._imported_prefixes:
            known = await self.find_by_prefix(prefix) if code.startswith(prefix) else None
            if known is not None and isinstance(known.codes, ImportedCodeBook):
                address = known.codes.find_code(code)
                if address is not None:
                    return known, address
        return None

    def _is_unknown(self, kind: str, name: str) -> bool:
        return self._unknown_until.get((kind, name), 0.0) > time.monotonic()

    def _remember_unknown(self, kind: str, name: str) -> None:
        if len(self._unknown_until) >= MAX_UNKNOWN:
            self._unknown_until.clear()
        self._unknown_until[kind, name] = time.monotonic() + UNKNOWN_FOR_S


def _with_lower_caps(old: Campaign, new: Campaign) -> Campaign:
    """The old campaign with those caps of the new one that are lower and that shards may therefore refuse."""
    budgets = [campaign.budget for campaign in (old, new) if campaign.budget is not None]
    return replace(
        old,
        version=new.version,
        max_coupons=min(old.max_coupons, new.max_coupons),
        budget=min(budgets, key=lambda budget: budget.amount, default=None),
    )


def _amounts(campaign: Campaign, counters: Counters, drawn: list[int]) -> Amounts:
    """What was drawn from a pot is counted in the store; other coupons are all worth the same."""
    if isinstance(campaign.benefit, RedEnvelope):
        return Amounts(*drawn)
    worth = campaign.benefit.worst_case
    return Amounts(*(getattr(counters, field.name) * worth for field in fields(Amounts)))
