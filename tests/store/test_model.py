"""The store against its model: any story that Hypothesis can think of ends the same in both.

`TIDEGATE_SOAK_EXAMPLES=5000` makes it think for longer than a test run has time for.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
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

from service.domain.campaign import CampaignStatus
from service.domain.coupon import CouponStatus
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

users = st.sampled_from(["ann", "bob", "eve"])
wishes = st.lists(st.tuples(users, st.sampled_from("123456")), min_size=3, max_size=8)
sequences = st.integers(0, UNKNOWN)
verbs: st.SearchStrategy[SettleVerb] = st.sampled_from(["commit", "release", "rollback"])
holds = st.sampled_from([0, 0, 1_000, DAY // 2, 3 * DAY])
caps = st.integers(5, 20)
budgets = st.none() | st.integers(5, 20).map(lambda coupons: Money(coupons * WORTH + 1, "CNY"))
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
    )
    def open(self, wishes: list[tuple[str, str]], per_user: int, issue_rate: Rate | None, **terms: Any) -> None:
        self.run(self.room.client.flushall())
        self.run(self.room.clock.set(LAUNCH))
        terms |= {"max_coupons_per_user": per_user, "issue_rate": issue_rate or UNLIMITED}
        self.desk = self.run(self.room.open(**terms))
        self.model = Model(self.desk.campaign, LAUNCH)
        self.heard = 0
        self.extended: set[tuple[int, int]] = set()
        self.issue(wishes)

    @rule(wishes=wishes)
    def issue(self, wishes: list[tuple[str, str]]) -> None:
        assert self.run(self.desk.issue_batch(wishes)) == [self.model.issue(*wish) for wish in wishes]

    @rule(batch=st.lists(requests, min_size=2, max_size=5))
    def redeem(self, batch: list[RedeemRequest]) -> None:
        batch = [replace(one, sequence=self.known_or_next(one.sequence)) for one in batch]
        expected = [
            self.model.redeem(one.sequence, one.merchant_id, one.order_id, one.order_amount, one.hold_ms)
            for one in batch
        ]
        assert self.run(self.desk.redeem_batch(batch)) == expected

    @precondition(lambda self: self.taken())
    @rule(steps=st.lists(st.tuples(verbs, sequences, st.sampled_from([0, 0, 0, 1, -1])), min_size=1, max_size=4))
    def settle(self, steps: list[tuple[SettleVerb, int, int]]) -> None:
        for verb, number, back in steps:
            sequence = self.taken()[number % len(self.taken())]
            attempt = self.model.coupons[sequence].attempts - back
            assert self.run(self.desk.settle(verb, sequence, attempt)) == self.model.settle(verb, sequence, attempt)
        # A coupon that is given back too late expires in the same step, which is no news to the model.
        self.heard = len(self.run(self.room.events()))

    @rule(sequence=sequences)
    def deactivate(self, sequence: int) -> None:
        sequence = self.known_or_next(sequence)
        assert self.run(self.desk.deactivate(sequence)) == self.model.deactivate(sequence)

    @rule(days=st.integers(1, 8))
    def extend(self, days: int) -> None:
        self.run(self.desk.extend(LAUNCH + days * DAY))
        self.model.extensions.append((self.model.now_ms, LAUNCH + days * DAY))

    @rule(number=st.integers(1, 3), work=st.sampled_from(["write_through", "expire", "lapse"]))
    def tidy_a_chunk(self, number: int, work: str) -> None:
        """Part of the work, so that everything else may happen in between."""
        arguments = (self.desk.campaign, 0, number) if work == "write_through" else (self.desk.campaign, 0)
        self.run(getattr(self.room.extensions, work)(*arguments))
        self.hear()

    @rule()
    def tidy_everything(self) -> None:
        self.run(self.desk.tidy())
        self.hear()
        assert self.model.untidy() == []

    @rule(changes=changes)
    def change(self, changes: dict[str, Any]) -> None:
        expected = self.model.change(replace(self.model.campaign, **changes))
        assert self.run(self.desk.change(**changes)) == expected

    @rule(by_ms=st.sampled_from([1, 999, 1_000, DAY // 4, DAY // 2, DAY]))
    def let_time_pass(self, by_ms: int) -> None:
        self.run(self.room.clock.advance(by_ms))
        self.model.now_ms += by_ms

    @invariant()
    def the_ledgers_agree(self) -> None:
        counters = self.run(self.room.catalogue.ledger(self.desk.campaign)).counters
        assert counters == self.model.counters()
        assert counters.conservation_error == 0

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        self.the_coupons_agree()
        for number in range(len(self.model.extensions), 0, -1):
            progress = self.run(self.desk.write_through(number))
            self.hear()
            assert (progress.done, progress.changed) == (
                progress.total,
                len([n for n, _ in self.extended if n == number]),
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
        expected = [self.model.coupon(sequence) for sequence in range(len(self.model.coupons))]
        assert self.run(self.desk.all_coupons()) == expected
        for user in {coupon.user_id for coupon in expected}:
            mine = [coupon for coupon in expected if coupon.user_id == user]
            assert self.run(self.room.coupons.user_coupons(self.desk.known, user)) == mine

    def known_or_next(self, number: int) -> int:
        """The sequence of some coupon, or now and then the first that does not exist."""
        issued = len(self.model.coupons)
        return number % issued if issued and number < UNKNOWN else issued

    def taken(self) -> list[int]:
        """The coupons that somebody has tried to redeem."""
        return [number for number, held in enumerate(self.model.coupons) if held.attempts]

    def hear(self) -> None:
        """Learn from the events what the tidying has done; the model says whether it was allowed to."""
        events = self.run(self.room.events())
        for event in events[self.heard :]:
            match event.type:
                case "coupon.expired" | "coupon.lapsed":
                    for sequence in event.coupons:
                        self.model.tidied(sequence)
                case "coupon.extended":
                    for sequence in event.coupons:
                        extension = event.data["extension"]
                        assert self.model.lifted(extension, sequence)
                        assert (extension, sequence) not in self.extended
                        self.extended.add((extension, sequence))
        self.heard = len(events)


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
