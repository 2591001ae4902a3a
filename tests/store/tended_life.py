"""Why: what operators, workers and the clock do to a campaign, step by step in the store and in its models.

A killed worker leaves its chunks where they are: here every chunk is a step of its own, so it is killed everywhere.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from service.domain.benefit import RedEnvelope
from service.domain.campaign import Campaign, IllegalTransition, StatusVerb, change_status, scheduled_status
from service.domain.extension import Outage, Scope, Terms
from service.domain.money import Money
from service.domain.validity import DAY_MS
from service.store.extension_progress import ExtensionProgress
from service.store.extensions import ExtensionRefusal
from service.store.recounts import RecountStore
from service.store.scripts import StoreError
from tests.store import choices
from tests.store.extension_model import ExtensionModel
from tests.store.watched_life import WatchedLife

CHUNK: Final = 3


class TendedLife(WatchedLife):
    """A campaign that is extended, tidied, changed, paused and recounted."""

    outages = 0
    power_cuts = 0

    @precondition(lambda self: len(self.models[0].made) < choices.MOST_EXTENSIONS)
    @rule(until_ms=choices.days, include_expired=st.booleans(), scope=choices.scopes)
    def extend(self, until_ms: int, include_expired: bool, scope: Scope | None) -> None:
        terms = Terms(until_ms=until_ms, reason="as asked", include_expired=include_expired, scope=scope)
        made = self.run(self.room.extensions.extend(self.desk.campaign, terms))
        for model in self.models:
            model.extend(terms)
            assert made.number == len(model.made)

    @precondition(lambda self: len(self.models[0].made) < choices.MOST_EXTENSIONS)
    @rule(from_ms=choices.days, length_ms=st.integers(1, DAY_MS))
    def stop_the_clock(self, from_ms: int, length_ms: int) -> None:
        self.outages += 1
        outage = Outage(number=self.outages, from_ms=from_ms, to_ms=from_ms + length_ms, reason="down")
        self.run(self.room.extensions.extend(self.desk.campaign, outage))
        assert self.run(self.room.extensions.extend(self.desk.campaign, outage)) is ExtensionRefusal.KNOWN
        for model in self.models:
            model.extend(outage)

    @precondition(lambda self: self.models[0].made)
    @rule(number=choices.numbers)
    def undo(self, number: int) -> None:
        number = number % len(self.models[0].made) + 1
        self.run(self.desk.undo(number))
        for model in self.models:
            model.undo(number)

    @precondition(lambda self: len(self.models[0].made) < choices.MOST_EXTENSIONS)
    @rule(
        half_days=st.integers(1, 4),
        scope=choices.scopes,
        covered=st.none() | st.integers(0, 2),
        shard=choices.shards,
        chunks=st.integers(0, 3),
    )
    def bring_back_what_is_over(
        self, half_days: int, scope: Scope | None, covered: int | None, shard: int, chunks: int
    ) -> None:
        self.let_time_pass(DAY_MS)
        self.tidy_everything()
        if covered is not None:
            committed = sum(model.counters().budget_committed for model in self.models)
            self.change_what_is_promised(choices.MOST_COUPONS, Money(committed + covered * choices.WORTH, "CNY"))
        self.extend(self.models[0].now_ms + half_days * DAY_MS // 2, True, scope)
        self.recount_a_chunk(shard, CHUNK)
        for _ in range(chunks):
            self.work_off_a_chunk(shard, len(self.models[0].made) - 1, False)

    @precondition(lambda self: self.models[0].made)
    @rule(shard=choices.shards, number=choices.numbers, undo=st.booleans())
    def work_off_a_chunk(self, shard: int, number: int, undo: bool) -> None:
        model = self.model_of(shard)
        number = number % len(model.made) + 1
        if undo:
            self.run(self.room.extensions.write_undo_through(self.desk.campaign, model.shard, number))
            model.write_undo_through(number, CHUNK)
        else:
            self.run(self.room.extensions.write_through(self.desk.campaign, model.shard, number))
            model.write_through(number, CHUNK)

    @precondition(lambda self: self.power_cuts and len(self.models[0].made) < choices.MOST_EXTENSIONS)
    @rule(
        until_ms=choices.days,
        include_expired=st.booleans(),
        scope=choices.scopes,
        shard=choices.shards,
        undo=st.booleans(),
        moments=choices.kill_moments,
    )
    def cut_the_power_over_a_chunk(
        self, until_ms: int, include_expired: bool, scope: Scope | None, shard: int, undo: bool, moments: int
    ) -> None:
        """The store dies with a worker's chunk in its hands: all of it is written, checkpoint and all, or nothing."""
        self.power_cuts -= 1
        self.extend(until_ms, include_expired, scope)
        number, model = len(self.models[0].made), self.model_of(shard)
        if undo:
            self.write_everything_through()
            self.undo(number - 1)
        chunk = self.room.extensions.write_undo_through if undo else self.room.extensions.write_through
        self.die_over(partial(chunk, self.desk.campaign, model.shard, number), moments)
        if self.looked_at(number, undo) != self.written(number, undo):
            (model.write_undo_through if undo else model.write_through)(number, CHUNK)
        assert self.looked_at(number, undo) == self.written(number, undo)
        self.the_coupons_agree()
        self.the_events_add_up_to_the_ledger()

    @rule(shard=choices.shards, work=st.sampled_from(["expire", "lapse"]))
    def tidy_a_chunk(self, shard: int, work: str) -> None:
        self.run(getattr(self.room.extensions, work)(self.desk.campaign, self.model_of(shard).shard))
        self.hear()

    @rule()
    def tidy_everything(self) -> None:
        self.run(self.desk.tidy())
        self.hear()
        assert [model.untidy() for model in self.models] == [[] for _ in self.models]

    @rule(shard=choices.shards, coupons=st.integers(1, 5))
    def recount_a_chunk(self, shard: int, coupons: int) -> None:
        recounts = RecountStore(self.room.client, self.room.scripts, coupons)
        self.run(recounts.go_on(self.desk.campaign, self.model_of(shard).shard))
        found = self.run(recounts.latest(self.desk.campaign))
        assert found is None or found.adds_up

    @rule(max_coupons=choices.caps, budget=st.none() | choices.budgets)
    def change_what_is_promised(self, max_coupons: int, budget: Money | None) -> None:
        campaign = self.models[0].campaign
        if not isinstance(campaign.benefit, RedEnvelope):
            self.change(replace(campaign, max_coupons=max_coupons, budget=budget))

    @rule(verb=choices.operations)
    def operate(self, verb: StatusVerb) -> None:
        campaign = self.models[0].campaign
        with suppress(IllegalTransition):
            self.change(change_status(campaign, verb, "as asked", self.models[0].now_ms))

    @rule()
    def open_or_close_on_time(self) -> None:
        campaign = self.models[0].campaign
        self.change(replace(campaign, status=scheduled_status(campaign, self.models[0].now_ms)))

    @rule(by_ms=st.sampled_from([1, 999, 1_000, DAY_MS // 4, DAY_MS // 2, DAY_MS]))
    def let_time_pass(self, by_ms: int) -> None:
        self.run(self.room.clock.advance(by_ms))
        for model in self.models:
            model.now_ms += by_ms

    def write_everything_through(self) -> None:
        """Every extension and every undoing, chunk by chunk."""
        for _ in range(2 * choices.MOST_EXTENSIONS * (1 + choices.UNKNOWN // CHUNK)):
            if all(made.is_settled for model in self.models for made in model.made):
                break
            for shard in range(len(self.models)):
                for number in range(len(self.models[0].made)):
                    self.work_off_a_chunk(shard, number, False)
                    self.work_off_a_chunk(shard, number, True)

    def looked_at(self, number: int, undo: bool) -> int:
        """How many coupons the store has looked at for that extension, or for its undoing."""
        progress: ExtensionProgress = self.run(self.room.extensions.progress(self.desk.campaign, number))
        if not undo:
            return progress.done
        assert progress.undo is not None
        return progress.undo.done

    def written(self, number: int, undo: bool) -> int:
        """How many the models have."""
        made = [model.made[number - 1] for model in self.models]
        return sum(of_shard.undo_done if undo else of_shard.done for of_shard in made)

    def die_over(self, call: Callable[[], Coroutine[Any, Any, object]], moments: int) -> None:
        """Have the store die while it is called, and come back."""

        async def at_work() -> None:
            task = asyncio.create_task(call())
            for _ in range(moments):
                await asyncio.sleep(0)
            self.server.kill()
            with suppress(StoreError):
                await task
            await self.room.client.connection_pool.disconnect()

        self.run(at_work())
        self.server.start()

    def model_of(self, shard: int) -> ExtensionModel:
        """The model of that shard, or of the only one."""
        return self.models[shard % len(self.models)]

    def change(self, new: Campaign) -> None:
        """Have the campaign as given, unless that would promise less than was given out."""
        refused = next(filter(None, (model.refuses(new) for model in self.models)), None)
        changed = {"status": new.status, "max_coupons": new.max_coupons, "budget": new.budget}
        assert self.run(self.desk.change(**changed)) == refused
        for model in self.models:
            model.campaign = model.campaign if refused else new
