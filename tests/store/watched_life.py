"""Why: what must hold at every step of a campaign's life, apart from what happens in it."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import astuple
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from redis.asyncio import Redis

from service.domain.coupon import Amounts, Counters
from service.domain.events import Event, EventId
from service.domain.ledger import ShardLedger
from tests.store.desk import Desk, Room
from tests.store.extension_model import ExtensionModel
from tests.store.server import StoreServer


class WatchedLife(RuleBasedStateMachine):
    """A campaign in the store, and a model of each of its shards."""

    desk: Desk
    models: list[ExtensionModel]
    heard: list[EventId]

    def __init__(self, run: Callable[..., Any], client: Redis, server: StoreServer) -> None:
        super().__init__()
        self.run = run
        self.room = Room(client)
        self.server = server

    @invariant()
    def the_ledgers_agree(self) -> None:
        ledger = self.run(self.desk.ledger())
        assert astuple(ledger.counters) == summed(model.counters() for model in self.models)
        assert astuple(ledger.amounts) == summed(model.amounts() for model in self.models)

    @invariant()
    def no_budget_is_exceeded(self) -> None:
        for model in self.models:
            assert model.limits.budget is None or model.counters().budget_committed <= model.limits.budget

    @rule()
    def the_events_add_up_to_the_ledger(self) -> None:
        for model in self.models:
            told = ShardLedger(model.campaign.benefit.worst_case)
            for event in self.run(self.room.events(shard=model.shard)):
                told.apply(event)
            assert told.counters() == model.counters()

    @rule()
    def the_coupons_agree(self) -> None:
        for model in self.models:
            page = self.run(self.room.coupons.page(self.desk.known, model.shard, 0))
            assert [coupon for coupon, _ in page.coupons] == [model.coupon(n) for n in range(len(model.coupons))]

    @rule()
    def a_replay_shows_the_first_answer(self) -> None:
        for model in self.models:
            for (user, key), sequence in model.claims.items():
                replayed = self.run(self.desk.issue(user, key))
                assert astuple(replayed) == astuple(model.coupons[sequence].first_answer)

    def each_user_sees_his_coupons(self) -> None:
        """As the model has them, the oldest first."""
        for model in self.models:
            expected = [model.coupon(number) for number in range(len(model.coupons))]
            for user in {coupon.user_id for coupon in expected}:
                mine = [coupon for coupon in expected if coupon.user_id == user]
                assert self.run(self.room.coupons.user_coupons(self.desk.known, user)) == mine

    def the_extensions_agree(self) -> None:
        """All are written through, and have changed and told what the models say, once."""
        told = Counter(
            (event.data["extension"], model.shard, sequence)
            for model in self.models
            for event in self.run(self.room.events(shard=model.shard))
            if event.type == "coupon.extended"
            for sequence in event.coupons
        )
        assert set(told.values()) <= {1}
        for number, made in enumerate(zip(*(model.made for model in self.models), strict=True), start=1):
            progress = self.run(self.room.extensions.progress(self.desk.campaign, number))
            assert progress.is_written
            assert (progress.undo is None, progress.undo_is_written) == (
                made[0].undone_step is None,
                made[0].undone_step is not None,
            )
            assert (progress.changed, progress.revived, progress.refused) == (
                sum(of_shard.changed for of_shard in made),
                sum(of_shard.revived for of_shard in made),
                sum(of_shard.refused for of_shard in made),
            )
            assert progress.changed == sum(extension == number for extension, _, _ in told)

    def news(self) -> list[tuple[ExtensionModel, Event]]:
        """The events since the last look, each with the model of its shard."""
        news = []
        for model in self.models:
            events = self.run(self.room.events(shard=model.shard, after=self.heard[model.shard]))
            news += [(model, event) for event in events]
            self.heard[model.shard] = events[-1].id if events else self.heard[model.shard]
        return news

    def hear(self) -> None:
        """Learn from the events what the tidying has done; the model says whether it was allowed to."""
        for model, event in self.news():
            if event.type in ("coupon.expired", "coupon.lapsed"):
                for sequence in event.coupons:
                    model.tidied(sequence)


def summed(ledgers: Iterable[Counters | Amounts]) -> tuple[int, ...]:
    """The shards' ledgers, figure by figure."""
    return tuple(map(sum, zip(*map(astuple, ledgers), strict=True)))
