"""The store against its model: any story that Hypothesis can think of ends the same in both.

`TIDEGATE_SOAK_EXAMPLES=5000` makes it think for longer than a test run has time for.
"""

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import astuple, replace
from functools import partial
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from service.domain.benefit import Amount, Percent, RedEnvelope
from service.domain.campaign import CampaignStatus
from service.domain.coupon import Amounts, Counters, CouponStatus
from service.domain.limits import DailyLimits, HolderLimits
from service.domain.money import Money, Rate
from service.domain.opening import Hours, Opening
from service.domain.validity import Duration, FixedValidity, RelativeValidity, RelativeWaves, zone_offsets
from service.store import extensions
from service.store.client import connect
from service.store.coupons import RedeemRequest, SettleVerb
from tests.store.desk import LAUNCH, UNLIMITED, Room
from tests.store.model import Model

EXAMPLES: Final = int(os.environ.get("TIDEGATE_SOAK_EXAMPLES", "50"))
STEPS: Final = 40
DAY: Final = 86_400_000
WORTH: Final = 2500
UNKNOWN: Final = 20
LONG_AFTER: Final = 20 * DAY
"""So much later every coupon that was not redeemed or deactivated has expired."""

users = st.sampled_from(["ann", "bob", "eve", "zoe"])
wishes = st.lists(st.tuples(users, st.sampled_from("123456")), min_size=3, max_size=8)
sequences = st.integers(0, UNKNOWN)
shards = st.integers(0, 1)
verbs: st.SearchStrategy[SettleVerb] = st.sampled_from(["commit", "release", "rollback"])
holds = st.sampled_from([0, 0, 1_000, DAY // 2, 3 * DAY])
caps = st.integers(5, 20)
budgets = st.none() | st.integers(5, 20).map(lambda coupons: Money(coupons * WORTH + 1, "CNY"))
few = st.sampled_from([None, None, None, 2, 3])
losers = st.sampled_from(["ann", "zoe", *["nobody"] * 4])
benefits = st.sampled_from([Amount(WORTH, "CNY"), Amount(WORTH, "CNY", 100), Percent(33, WORTH, "CNY")])
rates = st.sampled_from([None, None, None, Rate(50, 5), Rate(999_999, 4)])
requests = st.builds(
    RedeemRequest,
    sequences,
    st.sampled_from(["tea house", "book shop"]),
    st.sampled_from(["order 1", "order 2"]),
    st.sampled_from([None, 0, 100, 5_000]),
    holds,
)
changes = st.one_of(
    st.fixed_dictionaries({"status": st.sampled_from([CampaignStatus.RUNNING] * 3 + [CampaignStatus.PAUSED])}),
    st.fixed_dictionaries({"max_coupons": caps, "budget": budgets}),
)
validities = st.sampled_from(
    [
        FixedValidity("Asia/Shanghai", None, LAUNCH + 2 * DAY),
        FixedValidity("Asia/Shanghai", LAUNCH + 1_000, LAUNCH + 2 * DAY),
        *(
            RelativeValidity("Asia/Shanghai", wait, Duration(days=1), zone_offsets("Asia/Shanghai", LAUNCH))
            for wait in (Duration(), Duration(exact_ms=1_000))
        ),
        RelativeValidity(
            "Asia/Shanghai",
            Duration(),
            Duration(days=1),
            zone_offsets("Asia/Shanghai", LAUNCH),
            opening=Opening((Hours(("fri", "sat"), 466, 1_200),)),
            waves=RelativeWaves(3, Duration(exact_ms=30_000)),
        ),
    ]
)


class CouponLife(RuleBasedStateMachine):
    """One campaign's life in the store and in the model, step by step."""

    def __init__(self, run: Callable[..., Any], client: Redis) -> None:
        super().__init__()
        self.run = run
        self.room = Room(client)

    @initialize(
        wishes=wishes,
        validity=validities,
        max_coupons=caps,
        per_user=st.integers(2, 6),
        budget=budgets,
        issue_rate=rates,
        user_rate=rates,
        merchant_rate=rates,
        benefit=benefits,
        in_pot=st.none() | st.integers(0, 500),
        max_quota_per_user=st.sampled_from([None, 8]),
        per_day=few.map(lambda coupons: coupons and coupons * 4),
        per_user_per_day=few,
        per_order=st.sampled_from([None, None, 1, 2]),
        per_merchant=few,
        shards=shards,
    )
    def open(
        self,
        wishes: list[tuple[str, str]],
        per_user: int,
        issue_rate: Rate | None,
        in_pot: int | None,
        per_day: int | None,
        per_user_per_day: int | None,
        per_order: int | None,
        per_merchant: int | None,
        shards: int,
        **terms: Any,
    ) -> None:
        self.run(self.room.client.flushall())
        self.run(self.room.clock.set(LAUNCH))
        terms |= {"max_coupons_per_user": per_user, "issue_rate": issue_rate or UNLIMITED}
        if in_pot is not None:
            coupons = terms["max_coupons"]
            terms |= {"benefit": RedEnvelope(coupons * 10 + in_pot, coupons, 10, "CNY"), "budget": None}
        if per_day or per_user_per_day:
            terms["daily_limits"] = DailyLimits(per_day, per_user_per_day, zone_offsets("Asia/Shanghai", LAUNCH))
        if per_order or per_merchant:
            terms["holder_limits"] = HolderLimits(per_order, per_merchant)
        self.desk = self.run(self.room.open(**terms, shards=1 if per_order else shards + 1))
        campaign = self.desk.campaign
        self.models = [Model(campaign, LAUNCH, shard) for shard in range(campaign.shards)]
        self.heard = [0] * campaign.shards
        self.extended: set[tuple[int, int, int]] = set()
        self.issue(wishes)

    @rule(wishes=wishes)
    def issue(self, wishes: list[tuple[str, str]]) -> None:
        for model in self.models:
            of_shard = [wish for wish in wishes if self.desk.known.place(wish[0])[0] == model.shard]
            outcomes = self.run(self.desk.issue_batch(of_shard, model.shard))
            drawn = [getattr(outcome, "drawn_amount", None) for outcome in outcomes]
            assert outcomes == [model.issue(*wish, amount) for wish, amount in zip(of_shard, drawn, strict=True)]

    @rule(shard=shards, batch=st.lists(requests, min_size=2, max_size=5))
    def redeem(self, shard: int, batch: list[RedeemRequest]) -> None:
        model = self.model_of(shard)
        batch = [replace(one, sequence=known_or_next(model, one.sequence)) for one in batch]
        expected = [
            model.redeem(one.sequence, one.merchant_id, one.order_id, one.order_amount, one.hold_ms) for one in batch
        ]
        assert self.run(self.desk.redeem_batch(batch, model.shard)) == expected

    @precondition(lambda self: any(taken(model) for model in self.models))
    @rule(steps=st.lists(st.tuples(verbs, sequences, st.sampled_from([0, 0, 0, 1, -1])), min_size=1, max_size=4))
    def settle(self, steps: list[tuple[SettleVerb, int, int]]) -> None:
        for verb, number, back in steps:
            for model in filter(taken, self.models):
                sequence = taken(model)[number % len(taken(model))]
                attempt = model.coupons[sequence].attempts - back
                outcome = self.run(self.desk.settle(verb, sequence, attempt, model.shard))
                assert outcome == model.settle(verb, sequence, attempt)
        # A coupon that is given back too late expires in the same step, which is no news to the model.
        for model in self.models:
            self.heard[model.shard] = len(self.run(self.room.events(shard=model.shard)))

    @rule(shard=shards, numbers=st.lists(sequences, min_size=1, max_size=2))
    def deactivate(self, shard: int, numbers: list[int]) -> None:
        model = self.model_of(shard)
        numbers = list(dict.fromkeys(known_or_next(model, number) for number in numbers))
        outcomes = self.run(self.desk.deactivate_all(numbers, model.shard))
        assert outcomes == [model.deactivate(number) for number in numbers]

    @rule(user=losers)
    def deactivate_user(self, user: str) -> None:
        model = self.models[self.desk.known.place(user)[0]]
        outcomes = [outcome for _, outcome in self.run(self.desk.deactivate_user(user))]
        assert outcomes == model.deactivate_user(user)

    @rule(user=users, max_coupons=st.integers(1, 9))
    def raise_quota(self, user: str, max_coupons: int) -> None:
        model = self.models[self.desk.known.place(user)[0]]
        assert self.run(self.desk.raise_quota(user, max_coupons)) == model.raise_quota(user, max_coupons)

    @rule(days=st.integers(1, 8))
    def extend(self, days: int) -> None:
        self.run(self.desk.extend(LAUNCH + days * DAY))
        for model in self.models:
            model.extensions.append((model.now_ms, LAUNCH + days * DAY))

    @rule(shard=shards, number=st.integers(1, 3), work=st.sampled_from(["write_through", "expire", "lapse"]))
    def tidy_a_chunk(self, shard: int, number: int, work: str) -> None:
        """Part of the work, so that everything else may happen in between."""
        arguments = [self.desk.campaign, self.model_of(shard).shard] + ([number] if work == "write_through" else [])
        self.run(getattr(self.room.extensions, work)(*arguments))
        self.hear()

    @rule()
    def tidy_everything(self) -> None:
        self.run(self.desk.tidy())
        self.hear()
        assert [model.untidy() for model in self.models] == [[] for _ in self.models]

    @rule(changes=changes)
    def change(self, changes: dict[str, Any]) -> None:
        campaign = self.models[0].campaign
        if isinstance(campaign.benefit, RedEnvelope):
            changes = {name: value for name, value in changes.items() if name == "status"}
        new = replace(campaign, **changes)
        refused = next(filter(None, (model.refuses(new) for model in self.models)), None)
        assert self.run(self.desk.change(**changes)) == refused
        for model in self.models:
            model.campaign = model.campaign if refused else new

    @rule(by_ms=st.sampled_from([1, 999, 1_000, DAY // 4, DAY // 2, DAY]))
    def let_time_pass(self, by_ms: int) -> None:
        self.run(self.room.clock.advance(by_ms))
        for model in self.models:
            model.now_ms += by_ms

    @invariant()
    def the_ledgers_agree(self) -> None:
        ledger = self.run(self.desk.ledger())
        assert astuple(ledger.counters) == summed(model.counters() for model in self.models)
        assert astuple(ledger.amounts) == summed(model.amounts() for model in self.models)

    def teardown(self) -> None:
        if not hasattr(self, "models"):
            return
        self.the_coupons_agree()
        for number in range(len(self.models[0].extensions), 0, -1):
            progress = self.run(self.desk.write_through(number))
            self.hear()
            assert (progress.done, progress.changed) == (
                progress.total,
                len([made for _, made, _ in self.extended if made == number]),
            )
        for _ in range(2):
            self.tidy_everything()
            self.the_coupons_agree()
            self.let_time_pass(LONG_AFTER)
        counters = self.run(self.desk.counters())
        statuses = [coupon.status for coupon in self.run(self.desk.all_coupons())]
        assert [statuses.count(status) for status in CouponStatus] == [
            counters.outstanding,
            counters.reserved,
            counters.redeemed,
            counters.expired,
            counters.deactivated,
        ]

    def the_coupons_agree(self) -> None:
        expected = [model.coupon(sequence) for model in self.models for sequence in range(len(model.coupons))]
        assert self.run(self.desk.all_coupons()) == expected
        for user in {coupon.user_id for coupon in expected}:
            mine = [coupon for coupon in expected if coupon.user_id == user]
            assert self.run(self.room.coupons.user_coupons(self.desk.known, user)) == mine

    def model_of(self, shard: int) -> Model:
        """The model of that shard, or of the only one."""
        return self.models[shard % len(self.models)]

    def hear(self) -> None:
        """Learn from the events what the tidying has done; the model says whether it was allowed to."""
        for model in self.models:
            events = self.run(self.room.events(shard=model.shard))
            for event in events[self.heard[model.shard] :]:
                match event.type:
                    case "coupon.expired" | "coupon.lapsed":
                        for sequence in event.coupons:
                            model.tidied(sequence)
                    case "coupon.extended":
                        for sequence in event.coupons:
                            lifted = (model.shard, event.data["extension"], sequence)
                            assert model.lifted(event.data["extension"], sequence)
                            assert lifted not in self.extended
                            self.extended.add(lifted)
            self.heard[model.shard] = len(events)


def known_or_next(model: Model, number: int) -> int:
    """The sequence of some coupon, or now and then the first that does not exist."""
    issued = len(model.coupons)
    return number % issued if issued and number < UNKNOWN else issued


def taken(model: Model) -> list[int]:
    """The coupons that somebody has tried to redeem."""
    return [number for number, held in enumerate(model.coupons) if held.attempts]


def summed(ledgers: Iterable[Counters | Amounts]) -> tuple[int, ...]:
    """The shards' ledgers, figure by figure."""
    return tuple(map(sum, zip(*map(astuple, ledgers), strict=True)))


def test_the_store_lives_any_life_as_its_model_does(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "COUPONS_PER_CALL", 3)
    limits = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
    with asyncio.Runner() as runner:
        client = connect(store_url, timeout_ms=5_000)
        try:
            machine: Any = partial(CouponLife, runner.run, client)
            run_state_machine_as_test(machine, settings=limits)
        finally:
            runner.run(client.aclose())
