"""Extensions of every kind against their model: whatever is made, undone, used and worked off meanwhile, they agree.

A killed worker leaves its chunks where they are: here every chunk is a step of its own, so it is killed everywhere.
"""

import asyncio
from collections.abc import Callable
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

from service.domain.extension import Outage, Scope, Terms
from service.domain.ledger import ShardLedger
from service.domain.money import Money
from service.domain.opening import Hours, Opening
from service.domain.outcomes import Issued
from service.domain.validity import Duration, FixedValidity, RelativeValidity, RelativeWaves, zone_offsets
from service.store import extensions
from service.store.client import connect
from service.store.coupons import SettleVerb
from service.store.extensions import ExtensionRefusal
from tests.store.desk import LAUNCH, Room
from tests.store.extension_model import ExtensionModel
from tests.store.test_model import DAY, EXAMPLES, WORTH

STEPS: Final = 25
CHUNK: Final = 3
MOST_EXTENSIONS: Final = 6
"""The model asks about each of them by all those before it."""

users = st.sampled_from(["ann", "bob", "eve"])
days = st.integers(0, 6).map(lambda day: LAUNCH + day * DAY // 2)
moments = st.none() | days
scopes = st.none() | st.one_of(
    st.builds(Scope, issued_from_ms=moments, issued_to_ms=moments, expiring_before_ms=moments),
    st.builds(Scope, user_ids=st.sets(users, min_size=1).map(lambda found: tuple(sorted(found)))),
    st.builds(Scope, merchant_id=st.sampled_from(["tea house", "book shop"])),
)
numbers = st.integers(0, MOST_EXTENSIONS)
sequences = st.integers(0, 20)
validities = st.sampled_from(
    [
        FixedValidity("Asia/Shanghai", None, LAUNCH + DAY),
        RelativeValidity("Asia/Shanghai", Duration(), Duration(days=1), zone_offsets("Asia/Shanghai", LAUNCH)),
        RelativeValidity(
            "Asia/Shanghai",
            Duration(),
            Duration(days=1),
            zone_offsets("Asia/Shanghai", LAUNCH),
            opening=Opening((Hours(("fri", "sat"), 0, 1_200),)),
            waves=RelativeWaves(3, Duration(exact_ms=DAY // 4)),
        ),
    ]
)


class ExtendedLife(RuleBasedStateMachine):
    """One campaign's life in the store and in the model, step by step."""

    def __init__(self, run: Callable[..., Any], client: Redis) -> None:
        super().__init__()
        self.run = run
        self.room = Room(client)

    @initialize(
        validity=validities,
        budget=st.none() | st.integers(4, 9).map(lambda coupons: Money(coupons * WORTH, "CNY")),
        wishes=st.lists(st.tuples(users, st.sampled_from("123456")), min_size=4, max_size=8),
    )
    def open(self, validity: FixedValidity | RelativeValidity, budget: Money | None, wishes: Any) -> None:
        self.run(self.room.client.flushall())
        self.run(self.room.clock.set(LAUNCH))
        self.desk = self.run(self.room.open(validity=validity, budget=budget))
        self.model = ExtensionModel(self.desk.campaign, LAUNCH)
        self.outages = self.heard = 0
        self.issue(wishes)

    @rule(wishes=st.lists(st.tuples(users, st.sampled_from("123456")), min_size=1, max_size=4))
    def issue(self, wishes: list[tuple[str, str]]) -> None:
        assert self.run(self.desk.issue_batch(wishes)) == [self.model.issue(*wish) for wish in wishes]

    @precondition(lambda self: self.model.coupons)
    @rule(sequence=sequences, merchant=st.sampled_from(["tea house", "book shop"]), hold_ms=st.sampled_from([0, DAY]))
    def redeem(self, sequence: int, merchant: str, hold_ms: int) -> None:
        sequence %= len(self.model.coupons)
        order = f"order {self.model.coupons[sequence].attempts}"
        assert self.run(self.desk.redeem(sequence, order, merchant, None, hold_ms)) == self.model.redeem(
            sequence, merchant, order, None, hold_ms
        )

    @precondition(lambda self: self.model.uses)
    @rule(sequence=sequences, verb=st.sampled_from(["commit", "release", "rollback"]))
    def settle(self, sequence: int, verb: SettleVerb) -> None:
        used = sorted(self.model.uses)
        sequence = used[sequence % len(used)]
        attempt = self.model.coupons[sequence].attempts
        assert self.run(self.desk.settle(verb, sequence, attempt)) == self.model.settle(verb, sequence, attempt)
        # A coupon that is given back too late expires in the same step, which is no news to the model.
        self.heard = len(self.run(self.room.events()))

    @precondition(lambda self: self.model.coupons)
    @rule(sequence=sequences)
    def deactivate(self, sequence: int) -> None:
        sequence %= len(self.model.coupons)
        assert self.run(self.desk.deactivate(sequence)) == self.model.deactivate(sequence)

    @precondition(lambda self: len(self.model.made) < MOST_EXTENSIONS)
    @rule(until_ms=days, include_expired=st.booleans(), scope=scopes)
    def extend(self, until_ms: int, include_expired: bool, scope: Scope | None) -> None:
        terms = Terms(until_ms=until_ms, reason="as asked", include_expired=include_expired, scope=scope)
        made = self.run(self.desk.extend(until_ms, include_expired=include_expired, scope=scope))
        self.model.extend(terms)
        assert made.number == len(self.model.made)

    @precondition(lambda self: len(self.model.made) < MOST_EXTENSIONS)
    @rule(from_ms=days, length_ms=st.integers(1, DAY))
    def stop_the_clock(self, from_ms: int, length_ms: int) -> None:
        self.outages += 1
        outage = Outage(number=self.outages, from_ms=from_ms, to_ms=from_ms + length_ms, reason="down")
        self.run(self.room.extensions.extend(self.desk.campaign, outage))
        assert self.run(self.room.extensions.extend(self.desk.campaign, outage)) is ExtensionRefusal.KNOWN
        self.model.extend(outage)

    @precondition(lambda self: self.model.made)
    @rule(number=numbers)
    def undo(self, number: int) -> None:
        number = number % len(self.model.made) + 1
        self.run(self.desk.undo(number))
        self.model.undo(number)

    @precondition(lambda self: self.model.made and self.model.coupons)
    @rule(number=numbers, sequence=sequences, verb=st.sampled_from([None, "release", "rollback"]))
    def undo_what_was_used(self, number: int, sequence: int, verb: SettleVerb | None) -> None:
        self.redeem(sequence, "tea house", DAY if verb == "release" else 0)
        self.let_time_pass(1)
        self.undo(number)
        if verb is not None and self.model.uses:
            self.settle(sequence, verb)
        self.redeem(sequence, "book shop", 0)
        self.the_coupons_agree()

    @precondition(lambda self: self.model.made)
    @rule(number=numbers, undo=st.booleans())
    def work_off_a_chunk(self, number: int, undo: bool) -> None:
        number = number % len(self.model.made) + 1
        if undo:
            self.run(self.room.extensions.write_undo_through(self.desk.campaign, 0, number))
            self.model.write_undo_through(number, CHUNK)
        else:
            self.run(self.room.extensions.write_through(self.desk.campaign, 0, number))
            self.model.write_through(number, CHUNK)

    @rule(work=st.sampled_from(["expire", "lapse"]))
    def tidy_a_chunk(self, work: str) -> None:
        self.run(getattr(self.room.extensions, work)(self.desk.campaign, 0))
        self.hear()

    @rule()
    def tidy_everything(self) -> None:
        self.run(self.desk.tidy())
        self.hear()
        assert self.model.untidy() == []

    @rule(by_ms=st.sampled_from([1, 999, DAY // 4, DAY // 2, DAY]))
    def let_time_pass(self, by_ms: int) -> None:
        self.run(self.room.clock.advance(by_ms))
        self.model.now_ms += by_ms

    @invariant()
    def the_ledgers_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        counters = self.run(self.room.catalogue.ledger(self.desk.campaign)).counters
        assert counters == self.model.counters()
        assert counters.conservation_error == 0

    @rule()
    def the_events_add_up_to_the_ledger(self) -> None:
        told = ShardLedger(WORTH)
        for event in self.run(self.room.events()):
            told.apply(event)
        assert told.counters() == self.model.counters()

    @rule()
    def the_coupons_agree(self) -> None:
        assert self.run(self.desk.all_coupons()) == [self.model.coupon(n) for n in range(len(self.model.coupons))]

    @invariant()
    def no_budget_is_exceeded(self) -> None:
        budget = self.model.campaign.budget if hasattr(self, "model") else None
        assert budget is None or self.model.counters().budget_committed <= budget.amount

    @rule()
    def a_replay_shows_the_first_answer(self) -> None:
        for held in self.model.coupons[:3]:
            key = next(key for (user, key), n in self.model._claims.items() if n == held.first_answer.sequence)
            replayed = self.run(self.desk.issue(held.user, key))
            first = held.first_answer
            assert (
                Issued(replayed.sequence, replayed.issued_at_ms, replayed.starts_at_ms, replayed.expires_at_ms) == first
            )

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        for _ in range(2 * MOST_EXTENSIONS * (1 + len(self.model.coupons) // CHUNK)):
            for number in range(len(self.model.made)):
                self.work_off_a_chunk(number, False)
                self.work_off_a_chunk(number, True)
            if all(made.done == made.issued and self.model.is_undo_written(made) for made in self.model.made):
                break
        self.the_coupons_agree()
        self.a_replay_shows_the_first_answer()
        for number, made in enumerate(self.model.made, start=1):
            progress = self.run(self.room.extensions.progress(self.desk.campaign, number))
            assert progress.is_written
            assert (progress.undo is None) == (made.undone_step is None)
            assert progress.undo is None or progress.undo_is_written
            assert (progress.changed, progress.revived, progress.refused) == (made.changed, made.revived, made.refused)
        self.let_time_pass(30 * DAY)
        self.tidy_everything()
        self.the_coupons_agree()
        self.the_events_add_up_to_the_ledger()

    def hear(self) -> None:
        """Learn from the events what the tidying has done; the model says whether it was allowed to."""
        events = self.run(self.room.events())
        for event in events[self.heard :]:
            if event.type in ("coupon.expired", "coupon.lapsed"):
                for sequence in event.coupons:
                    self.model.tidied(sequence)
        self.heard = len(events)


def test_extensions_of_every_kind_live_as_their_model_does(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "COUPONS_PER_CALL", CHUNK)
    monkeypatch.setattr(extensions, "UNDONE_PER_CALL", CHUNK)
    limits = settings(max_examples=EXAMPLES, stateful_step_count=STEPS, deadline=None)
    with asyncio.Runner() as runner:
        client = connect(store_url, timeout_ms=5_000)
        try:
            machine: Any = partial(ExtendedLife, runner.run, client)
            run_state_machine_as_test(machine, settings=limits)
        finally:
            runner.run(client.aclose())
