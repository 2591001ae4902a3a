"""Why: one campaign's whole life, step by step in the store and in its models; Hypothesis thinks of the steps."""

from collections.abc import Callable, Coroutine
from dataclasses import astuple, replace
from functools import partial
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from service.domain.benefit import RedEnvelope
from service.domain.coupon import CouponStatus
from service.domain.events import BEGINNING
from service.domain.outcomes import Issued, IssueOutcome, Redeemed, RedeemOutcome, RedemptionReplayed, Replayed
from service.domain.validity import DAY_MS, Validity
from service.store.coupons import RedeemRequest, SettleVerb
from tests.store import choices
from tests.store.desk import LAUNCH
from tests.store.extension_model import ExtensionModel
from tests.store.tended_life import TendedLife

LONG_AFTER: Final = 20 * DAY_MS
"""So much later every coupon that was not redeemed or deactivated has expired."""


class CampaignLife(TendedLife):
    """What operators, users, merchants, workers, the clock and power cuts do to one campaign."""

    @initialize(
        wishes=choices.first_wishes,
        promise=choices.promises,
        validity=choices.validities,
        per_user=st.integers(2, 6),
        limits=st.lists(choices.limits, max_size=2),
        shards=choices.shards,
        power_cuts=st.sampled_from([0, 1, 2, 3]),
        layout=st.sampled_from([3, 3, 2, 1, 0]),
    )
    def open(
        self,
        wishes: list[tuple[str, str]],
        promise: dict[str, Any],
        validity: Validity,
        per_user: int,
        limits: list[dict[str, Any]],
        shards: int,
        power_cuts: int,
        layout: int,
    ) -> None:
        self.run(self.room.client.flushall())
        self.run(self.room.clock.set(LAUNCH))
        terms: dict[str, Any] = {"validity": validity, "max_coupons_per_user": per_user, "budget": None}
        for more in (promise, *limits):
            terms |= more
        if isinstance(terms["benefit"], RedEnvelope):
            terms["budget"] = None
        of_an_order = "holder_limits" in terms and terms["holder_limits"].per_order
        terms["shards"] = 1 if of_an_order else shards + 1
        self.desk = self.run(self.room.open(**terms))
        if layout < 3:
            self.run(self.desk.as_of_layout(layout))
        campaign = self.desk.campaign
        self.models = [ExtensionModel(campaign, LAUNCH, shard) for shard in range(campaign.shards)]
        self.heard = [BEGINNING] * campaign.shards
        self.power_cuts = power_cuts
        self.issue(wishes)

    @rule(wishes=choices.wishes)
    def issue(self, wishes: list[tuple[str, str]]) -> None:
        for model in self.models:
            of_shard = self.of_shard(model, wishes)
            outcomes = self.run(self.desk.issue_batch(of_shard, model.shard))
            assert outcomes == issued(model, of_shard, outcomes)

    @rule(shard=choices.shards, batch=st.lists(choices.requests, min_size=2, max_size=5))
    def redeem(self, shard: int, batch: list[RedeemRequest]) -> None:
        model = self.model_of(shard)
        batch = [replace(one, sequence=known_or_next(model, one.sequence)) for one in batch]
        assert self.run(self.desk.redeem_batch(batch, model.shard)) == redeemed(model, batch)

    @precondition(lambda self: any(taken(model) for model in self.models))
    @rule(
        steps=st.lists(
            st.tuples(choices.verbs, choices.sequences, st.sampled_from([0, 0, 0, 1, -1])), min_size=1, max_size=4
        )
    )
    def settle(self, steps: list[tuple[SettleVerb, int, int]]) -> None:
        for verb, number, back in steps:
            for model in filter(taken, self.models):
                sequence = taken(model)[number % len(taken(model))]
                attempt = model.coupons[sequence].attempts - back
                outcome = self.run(self.desk.settle(verb, sequence, attempt, model.shard))
                assert outcome == model.settle(verb, sequence, attempt)
        # A coupon that is given back too late expires in the same step, which is no news to the model.
        self.news()

    @rule(shard=choices.shards, numbers=st.lists(choices.victims, min_size=1, max_size=2))
    def deactivate(self, shard: int, numbers: list[int]) -> None:
        model = self.model_of(shard)
        numbers = list(dict.fromkeys(known_or_next(model, number) for number in numbers))
        outcomes = self.run(self.desk.deactivate_all(numbers, model.shard))
        assert outcomes == [model.deactivate(number) for number in numbers]

    @rule(user=choices.losers)
    def deactivate_user(self, user: str) -> None:
        model = self.models[self.desk.known.place(user)[0]]
        outcomes = [outcome for _, outcome in self.run(self.desk.deactivate_user(user))]
        assert outcomes == model.deactivate_user(user)

    @rule(user=choices.users, max_coupons=st.integers(1, 9))
    def raise_quota(self, user: str, max_coupons: int) -> None:
        model = self.models[self.desk.known.place(user)[0]]
        assert self.run(self.desk.raise_quota(user, max_coupons)) == model.raise_quota(user, max_coupons)

    @precondition(lambda self: self.models[0].made and self.models[0].coupons)
    @rule(number=choices.numbers, sequence=choices.sequences, verb=st.sampled_from([None, "release", "rollback"]))
    def undo_what_was_used(self, number: int, sequence: int, verb: SettleVerb | None) -> None:
        hold_ms = DAY_MS if verb == "release" else 0
        self.redeem(0, [RedeemRequest(sequence, "tea house", f"before {number}", 5_000, hold_ms)])
        self.let_time_pass(1)
        self.undo(number)
        if verb is not None and taken(self.models[0]):
            self.settle([(verb, sequence, 0)])
        self.redeem(0, [RedeemRequest(sequence, "book shop", f"after {number}", 5_000, 0)])
        self.the_coupons_agree()

    @precondition(lambda self: self.power_cuts)
    @rule(
        shard=choices.shards,
        wishes=choices.wishes,
        batch=st.none() | st.lists(choices.requests, min_size=2, max_size=5),
        moments=choices.kill_moments,
    )
    def cut_the_power(
        self, shard: int, wishes: list[tuple[str, str]], batch: list[RedeemRequest] | None, moments: int
    ) -> None:
        """The store dies with a call in its hands: whoever got no answer repeats it, and that is as if he had not."""
        self.power_cuts -= 1
        model = self.model_of(shard)
        if batch is None:
            of_shard = self.of_shard(model, wishes)
            outcomes = self.answer_at_last(partial(self.desk.issue_batch, of_shard, model.shard), moments)
            assert outcomes == list(map(first_answer, issued(model, of_shard, outcomes)))
        else:
            batch = [replace(one, sequence=known_or_next(model, one.sequence)) for one in batch]
            # Who is refused a coupon just before somebody else gets it is refused for another reason when he repeats.
            first_of: dict[int, RedeemRequest] = {}
            batch = [first_of.setdefault(one.sequence, one) for one in batch]
            outcomes = self.answer_at_last(partial(self.desk.redeem_batch, batch, model.shard), moments)
            assert outcomes == list(map(first_answer, redeemed(model, batch)))
        self.the_coupons_agree()
        self.the_events_add_up_to_the_ledger()

    def teardown(self) -> None:
        if not hasattr(self, "models"):
            return
        self.write_everything_through()
        self.the_extensions_agree()
        self.a_replay_shows_the_first_answer()
        for _ in range(2):
            self.tidy_everything()
            self.the_coupons_agree()
            self.each_user_sees_his_coupons()
            self.let_time_pass(LONG_AFTER)
        self.the_events_add_up_to_the_ledger()
        assert self.run(self.desk.recount()).adds_up
        statuses = [coupon.status for coupon in self.run(self.desk.all_coupons())]
        counted = [statuses.count(status) for status in CouponStatus]
        assert counted == list(astuple(self.run(self.desk.counters())))[1 : 1 + len(counted)]

    def answer_at_last(self, call: Callable[[], Coroutine[Any, Any, list[Any]]], moments: int) -> list[Any]:
        """What the call is answered when it is repeated, once the store is back."""
        self.die_over(call, moments)
        return list(map(first_answer, self.run(call())))

    def of_shard(self, model: ExtensionModel, wishes: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The wishes of that shard's users."""
        return [wish for wish in wishes if self.desk.known.place(wish[0])[0] == model.shard]


def known_or_next(model: ExtensionModel, number: int) -> int:
    """The sequence of some coupon, or now and then the first that does not exist."""
    count = len(model.coupons)
    return number % count if count and number < choices.UNKNOWN else count


def taken(model: ExtensionModel) -> list[int]:
    """The coupons that somebody has tried to redeem."""
    return [number for number, held in enumerate(model.coupons) if held.attempts]


def issued(model: ExtensionModel, wishes: list[tuple[str, str]], outcomes: list[IssueOutcome]) -> list[IssueOutcome]:
    """What the model answers; it is told what was drawn."""
    drawn = [getattr(outcome, "drawn_amount", None) for outcome in outcomes]
    return [model.issue(*wish, amount) for wish, amount in zip(wishes, drawn, strict=True)]


def redeemed(model: ExtensionModel, batch: list[RedeemRequest]) -> list[RedeemOutcome]:
    """What the model answers."""
    return [model.redeem(one.sequence, one.merchant_id, one.order_id, one.order_amount, one.hold_ms) for one in batch]


def first_answer(outcome: IssueOutcome | RedeemOutcome) -> IssueOutcome | RedeemOutcome:
    """The answer that a replay repeats."""
    match outcome:
        case Replayed():
            return Issued(*astuple(outcome))
        case RedemptionReplayed(redemption):
            return Redeemed(redemption)
    return outcome
