"""Whatever is refused charges exactly nothing to any bucket, claim or record: after every batch all of them are read.

The histories follow from their seeds alone. `make soak` takes a million steps, a test run as many as it has time for.
"""

import os
import sys
from collections import Counter
from random import Random
from typing import Any, Final

import pytest

from service.domain.limits import DailyLimits
from service.domain.money import Money, Rate
from service.domain.outcomes import Issued, RateLimited, Redeemed
from service.domain.validity import DAY_MS, FixedValidity, zone_offsets
from service.store.coupons import RedeemRequest
from tests.store.desk import LAUNCH, UNLIMITED, Desk, Room
from tests.store.ledgers import FIELD, read_ledger
from tests.store.reckoning import Reckoning
from tests.store.records import unpacked

pytestmark = pytest.mark.anyio

STEPS: Final = 200 * int(os.environ.get("TIDEGATE_SOAK_EXAMPLES", "200"))
BATCH: Final = 256
BATCHES: Final = 12
ZONE: Final = "Asia/Shanghai"
OFFSETS: Final = zone_offsets(ZONE, LAUNCH)
USERS: Final = [f"user {number}" for number in range(30)]
KEYS: Final = [str(number) for number in range(24)]
DAY: Final = "day", "day_first"
MERCHANTS: Final = ["tea house", "book shop", "noodle bar", "cinema"]
TICKS_MS: Final = [0, 1, 40, 999, 5_000, 60_000, -700, DAY_MS // 4, DAY_MS // 2]
KINDS: Final = {
    *("Issued", "Replayed", "PerUserLimit", "SoldOut", "BudgetExhausted", "PerUserDailyLimit", "DailyLimit"),
    *("user", "campaign", "redemption", "merchant", "CampaignNotRunning"),
    *("Redeemed", "RedemptionReplayed", "AlreadyRedeemed", "ReservedElsewhere", "Expired", "UnknownCode"),
}


def terms(chance: Random) -> dict[str, Any]:
    """What a campaign limits: anything between nothing and all, and each so that it is reached."""
    a_day = DailyLimits(None, 2, OFFSETS), DailyLimits(40, None, OFFSETS), DailyLimits(100, 3, OFFSETS)
    return {
        "validity": FixedValidity(ZONE, None, LAUNCH + DAY_MS),
        "max_coupons": chance.choice([60, 200, 2_000]),
        "max_coupons_per_user": chance.choice([2, 5, 24, 24]),
        "budget": chance.choice([None, None, Money(2500 * 50 + 2499, "CNY"), Money(2500 * 150, "CNY")]),
        "daily_limits": chance.choice([None, None, *a_day]),
        "issue_rate": chance.choice([UNLIMITED, Rate(500, 20), Rate(33_333, 60)]),
        "user_rate": chance.choice([None, Rate(77, 2), Rate(1_000, 4)]),
        "merchant_rate": chance.choice([None, Rate(20, 5), Rate(5_001, 20)]),
        "redemptions_per_second_milli": chance.choice([None, 1]),
        "user_buckets": chance.choice([1, 1, 2, 7]),
    }


class History:
    """One campaign in the store and in the model, with what was in the store before the batch."""

    def __init__(self, room: Room, desk: Desk, chance: Random) -> None:
        self._room = room
        self._desk = desk
        self._chance = chance
        self._model = Reckoning(desk.campaign, LAUNCH)
        self._records: dict[int, bytes] = {}

    async def step(self) -> list[str]:
        """One batch after some time, and what became of each request, once all that the store holds is compared."""
        self._model.now_ms += self._chance.choice(TICKS_MS)
        await self._room.clock.set(self._model.now_ms)
        writes = await self._writes()
        outcomes, touched = await (self._redeem() if self._chance.random() < 0.4 else self._issue())
        assert (await self._writes() > writes) is bool(touched), "whoever refuses everybody writes nothing"
        await self._compare(touched)
        return [outcome.bucket if isinstance(outcome, RateLimited) else type(outcome).__name__ for outcome in outcomes]

    async def _issue(self) -> tuple[list[object], set[int]]:
        wishes = [self._desk.wish(self._chance.choice(USERS), self._chance.choice(KEYS)) for _ in range(BATCH)]
        expected = [self._model.issue(wish) for wish in wishes]
        assert await self._room.coupons.issue(self._desk.known, 0, wishes) == expected
        return list(expected), {outcome.sequence for outcome in expected if isinstance(outcome, Issued)}

    async def _redeem(self) -> tuple[list[object], set[int]]:
        chance, beyond = self._chance, len(self._model.coupons) + 2
        merchants = chance.sample(MERCHANTS, chance.randrange(1, len(MERCHANTS)))
        requests = [
            RedeemRequest(
                chance.randrange(beyond),
                chance.choice(merchants),
                f"order {chance.randrange(3)}",
                chance.choice([None, 0, 9_999]),
                chance.choice([0, 0, 3_000, DAY_MS // 4]),
            )
            for _ in range(BATCH)
        ]
        expected = [self._model.redeem(request) for request in requests]
        assert await self._desk.redeem_batch(requests) == expected
        return list(expected), {outcome.redemption.sequence for outcome in expected if isinstance(outcome, Redeemed)}

    async def _compare(self, touched: set[int]) -> None:
        model, state_key = self._model, self._desk.known.state_keys[0]
        buckets = self._desk.campaign.user_buckets
        suffixes = ["merchants", *(f"users:{n}" for n in range(buckets)), "rows:0", "coupons:0"]
        async with self._room.client.pipeline(transaction=False) as reading:
            for key in (state_key, *(state_key.replace("state", suffix) for suffix in suffixes)):
                reading.hgetall(key)
            state, merchants, *rest = await reading.execute()
        stored = read_ledger(state[FIELD]) | {name: int(state.get(name.encode(), 0)) for name in DAY}
        assert stored == model.state()
        assert merchants == model.merchants()
        assert rest[:buckets] == [model.users(bucket) for bucket in range(buckets)]
        records = unpacked(*rest[buckets:])
        assert {sequence for sequence, record in records.items() if self._records.get(sequence) != record} == touched
        assert all(records[sequence].startswith(model.coupons[sequence].head) for sequence in touched)
        assert len(records) == len(model.coupons)
        self._records = records

    async def _writes(self) -> int:
        facts: dict[str, int] = await self._room.client.info("persistence")
        return facts["rdb_changes_since_last_save"]


async def test_a_refusal_charges_exactly_nothing_to_any_bucket(room: Room) -> None:
    tally: Counter[str] = Counter()
    seed = 0
    while tally.total() < STEPS:
        chance, fresh = Random(seed), Room(room.client)
        await room.client.flushall()
        await fresh.clock.set(LAUNCH)
        history = History(fresh, await fresh.open(**terms(chance)), chance)
        for _ in range(min(BATCHES, -(-(STEPS - tally.total()) // BATCH))):
            try:
                tally.update(await history.step())
            except AssertionError as error:
                raise AssertionError(f"the history of seed {seed}: {error}") from error
        seed += 1
    assert tally.keys() >= KINDS
    sys.stdout.write(f"{tally.total():,} steps in {seed} histories, no difference: {dict(tally.most_common())}\n")
