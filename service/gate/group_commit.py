"""Group commit: requests that arrive while a script call is under way leave together in the next one.

One call is in flight per shard and verb. Idle, a batch is one request and costs one round trip; busy, batches grow by
themselves, and one fsync in the store covers all of them. That is what makes "on disk before the 201" nearly free.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from service.domain.outcomes import Overloaded, StoreUnavailable
from service.gate.signals import BatchReport, failure_of
from service.store.catalogue import KnownCampaign
from service.store.scripts import StoreError

Request = TypeVar("Request")
Outcome = TypeVar("Outcome")
Waiting = tuple[Request, asyncio.Future[Outcome | StoreUnavailable], float]
"""A request, where its outcome will be put, and since when it waits."""

OVERLOADED: Final = Overloaded()
STORE_UNAVAILABLE: Final = StoreUnavailable()


class GroupCommit(Generic[Request, Outcome]):
    """One verb's batches. `call` decides a batch of one shard and returns its outcomes in order.

    `max_batch` bounds how long one call may hold the store, `max_waiting` how many requests a shard keeps waiting.
    `observe` hears of every batch, `count` of the outcomes of every batch that the store answered.
    """

    def __init__(
        self,
        verb: str,
        call: Callable[[KnownCampaign, int, Sequence[Request]], Awaitable[list[Outcome]]],
        max_batch: int,
        max_waiting: int,
        observe: Callable[[BatchReport], None],
        count: Callable[[KnownCampaign, Sequence[Outcome]], None],
    ) -> None:
        self._verb = verb
        self._call = call
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._observe = observe
        self._count = count
        self._lanes: dict[str, _Lane[Request, Outcome]] = {}

    async def submit(
        self, campaign: KnownCampaign, shard: int, request: Request
    ) -> Outcome | Overloaded | StoreUnavailable:
        """Wait for the request's batch and return its outcome.

        A caller who gives up while waiting is taken out of the line; one who gives up later is not told, but what
        the store decided stands.
        """
        lane = self._lanes.get(campaign.state_keys[shard])
        if lane is None:
            lane = self._lanes[campaign.state_keys[shard]] = _Lane()
            lane.task = asyncio.create_task(self._drain(campaign, shard, lane))
        elif len(lane.waiting) >= self._max_waiting:
            return OVERLOADED
        answer = lane.create_answer()
        lane.waiting.append((request, answer, time.perf_counter()))
        return await answer

    async def _drain(self, campaign: KnownCampaign, shard: int, lane: "_Lane[Request, Outcome]") -> None:
        try:
            while batch := lane.depart(self._max_batch):
                await self._commit(campaign, shard, lane, batch)
        finally:
            del self._lanes[campaign.state_keys[shard]]
            lane.give_up()

    async def _commit(
        self,
        campaign: KnownCampaign,
        shard: int,
        lane: "_Lane[Request, Outcome]",
        batch: list[Waiting[Request, Outcome]],
    ) -> None:
        began = time.perf_counter()
        failure = None
        try:
            outcomes = await self._call(campaign, shard, [request for request, _, _ in batch])
        except StoreError as error:
            failure = failure_of(error)
            # Whoever waits behind a failed call would only wait to fail as well.
            lane.give_up()
        else:
            for (_, answer, _), outcome in zip(batch, outcomes, strict=True):
                if not answer.done():
                    answer.set_result(outcome)
            self._count(campaign, outcomes)
        finally:
            _give_up(batch)
        waited_s = began - batch[0][2]
        self._observe(BatchReport(self._verb, len(batch), waited_s, time.perf_counter() - began, failure))


class _Lane(Generic[Request, Outcome]):
    """The line before one shard; it exists while somebody stands in it."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.waiting: deque[Waiting[Request, Outcome]] = deque()
        # Asking for the running loop costs a system call, and every request needs a future.
        self.create_answer: Callable[[], asyncio.Future[Outcome | StoreUnavailable]]
        self.create_answer = asyncio.get_running_loop().create_future

    def depart(self, most: int) -> list[Waiting[Request, Outcome]]:
        """Take the first in line, without those who gave up."""
        batch: list[Waiting[Request, Outcome]] = []
        while self.waiting and len(batch) < most:
            waiting = self.waiting.popleft()
            if not waiting[1].done():
                batch.append(waiting)
        return batch

    def give_up(self) -> None:
        """Send everybody away."""
        _give_up(self.waiting)
        self.waiting.clear()


def _give_up(waiting: Iterable[Waiting[Request, Outcome]]) -> None:
    for _, answer, _ in waiting:
        if not answer.done():
            answer.set_result(STORE_UNAVAILABLE)
