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
        self._lanes: dict[str, deque[Waiting[Request, Outcome]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(
        self, campaign: KnownCampaign, shard: int, request: Request
    ) -> Outcome | Overloaded | StoreUnavailable:
        """Wait for the request's batch and return its outcome.

        A caller who gives up while waiting is taken out of the line; one who gives up later is not told, but what
        the store decided stands.
        """
        key = campaign.state_keys[shard]
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = deque()
            task = asyncio.create_task(self._drain(campaign, shard, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif len(lane) >= self._max_waiting:
            return OVERLOADED
        answer: asyncio.Future[Outcome | StoreUnavailable] = asyncio.get_running_loop().create_future()
        lane.append((request, answer, time.perf_counter()))
        return await answer

    async def _drain(self, campaign: KnownCampaign, shard: int, lane: deque[Waiting[Request, Outcome]]) -> None:
        try:
            while batch := self._next_batch(lane):
                await self._commit(campaign, shard, lane, batch)
        finally:
            del self._lanes[campaign.state_keys[shard]]
            _give_up(lane)

    def _next_batch(self, lane: deque[Waiting[Request, Outcome]]) -> list[Waiting[Request, Outcome]]:
        batch: list[Waiting[Request, Outcome]] = []
        while lane and len(batch) < self._max_batch:
            waiting = lane.popleft()
            if not waiting[1].done():
                batch.append(waiting)
        return batch

    async def _commit(
        self,
        campaign: KnownCampaign,
        shard: int,
        lane: deque[Waiting[Request, Outcome]],
        batch: list[Waiting[Request, Outcome]],
    ) -> None:
        began = time.perf_counter()
        waited_s = began - batch[0][2]
        failure = None
        try:
            outcomes = await self._call(campaign, shard, [request for request, _, _ in batch])
        except StoreError as error:
            failure = failure_of(error)
            # Whoever waits behind a failed call would only wait to fail as well.
            _give_up(lane)
            lane.clear()
        else:
            for (_, answer, _), outcome in zip(batch, outcomes, strict=True):
                if not answer.done():
                    answer.set_result(outcome)
            self._count(campaign, outcomes)
        finally:
            _give_up(batch)
        self._observe(BatchReport(self._verb, len(batch), waited_s, time.perf_counter() - began, failure))


def _give_up(waiting: Iterable[Waiting[Request, Outcome]]) -> None:
    for _, answer, _ in waiting:
        if not answer.done():
            answer.set_result(STORE_UNAVAILABLE)
