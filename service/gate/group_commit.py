"""Group commit: requests that arrive while a script call is under way leave together in the next one.

Idle, a batch is one request and costs one round trip; busy, batches grow by themselves, and one fsync in the store
covers all of them. That is what makes "on disk before the 201" nearly free.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from service.domain.outcomes import Overloaded, StoreUnavailable
from service.gate.batch_size import BatchSize
from service.gate.meters import Line
from service.gate.signals import UNANSWERED, BatchReport, failure_of
from service.store.catalogue import KnownCampaign
from service.store.scripts import StoreError

Request = TypeVar("Request")
Outcome = TypeVar("Outcome")
Decided = TypeVar("Decided", contravariant=True)

OVERLOADED: Final = Overloaded()
STORE_UNAVAILABLE: Final = StoreUnavailable()
MAX_CALLS: Final = 2
"""Calls under way at once for one shard and verb: while the store works on one, the next is on its way.

Of many that all lines want before one server every second is under way. More would only queue there, each with the
few who came in between; those who wait here leave together.
"""
KEPT_SHARE: Final = 8
"""Of so many places in line one is kept for those who have waited before, elsewhere."""
WORTH_ANOTHER_CALL: Final = 32
"""Only so many who wait are worth a second call; fewer pay less when they share the next one."""
FEW: Final = 16
"""Fewer let those join them who are just arriving: a call costs as much as several of those in it."""
JOIN_S: Final = 0.001
"""For so long at most."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """`max_batch` bounds what leaves in one call, `max_waiting` how many wait in all lines together.

    Whoever has waited `max_wait_s` has probably asked again elsewhere: the store's time is better spent on the others.
    """

    max_batch: int
    max_waiting: int
    max_wait_s: float


class Waiter(Protocol[Request, Decided]):
    """Somebody in line: what he wants, since when he waits, and whether he has gone.

    He is told the outcome once, or nothing if he has gone; `receive` must not raise.
    """

    request: Request
    since_s: float
    gone: bool

    def receive(self, outcome: Decided | Overloaded | StoreUnavailable) -> None:
        """Take the outcome."""


@dataclass(frozen=True, slots=True)
class HeldStore:
    """How long batches may hold the store: `size` learns it from `held_s`, which tells it of the call answered last."""

    size: BatchSize
    held_s: Callable[[], float]


class GroupCommit(Generic[Request, Outcome]):
    """One verb's batches. `call` decides a batch of one shard and returns its outcomes in order.

    `observe` hears of every batch, `count` of the outcomes of every batch that the store answered. `clock`, in seconds,
    is the one by which waiters say since when they wait. Without `held` nothing but `max_batch` bounds a batch. Before
    `one_server` lines wait for each other's calls; of several one may hang, and must not hold up the others' lines.
    """

    def __init__(
        self,
        verb: str,
        call: Callable[[KnownCampaign, int, Sequence[Request]], Awaitable[list[Outcome]]],
        bounds: Bounds,
        observe: Callable[[BatchReport], None],
        count: Callable[[KnownCampaign, Sequence[Outcome]], None],
        clock: Callable[[], float] = time.perf_counter,
        held: HeldStore | None = None,
        one_server: bool = False,
    ) -> None:
        self._verb = verb
        self._call = call
        self._bounds = bounds
        self._observe = observe
        self._count = count
        self._clock = clock
        self._held = held
        self._one_server = one_server
        self._waiting = 0
        self._nearly_full = bounds.max_waiting - bounds.max_waiting // KEPT_SHARE
        self._lines: dict[str, _Line[Request, Outcome]] = {}
        self._due: deque[_Line[Request, Outcome]] = deque()
        self._wanted = 0
        self._calls: set[asyncio.Task[None] | None] = set()

    @property
    def is_nearly_full(self) -> bool:
        """Whether only the kept places are left: nobody new should be let into the line."""
        return self._waiting >= self._nearly_full

    async def submit(
        self, campaign: KnownCampaign, shard: int, request: Request
    ) -> Outcome | Overloaded | StoreUnavailable:
        """Wait for the request's batch and return its outcome.

        A caller who gives up while waiting is taken out of the line; one who gives up later is not told, but what
        the store decided stands.
        """
        caller: _Caller[Request, Outcome] = _Caller(request, self._clock())
        self.enqueue(campaign, shard, caller)
        try:
            return await caller.outcome
        finally:
            caller.gone = True

    def enqueue(self, campaign: KnownCampaign, shard: int, waiter: Waiter[Request, Outcome]) -> None:
        """Put somebody in line. A full house turns him away at once."""
        if self._waiting >= self._bounds.max_waiting:
            waiter.receive(OVERLOADED)
            return
        line = self._lines.get(campaign.state_keys[shard])
        if line is None:
            line = self._lines[campaign.state_keys[shard]] = _Line(campaign, shard)
        line.waiting.append(waiter)
        self._waiting += 1
        if not line.calls or (line.calls < MAX_CALLS and len(line.waiting) >= WORTH_ANOTHER_CALL):
            line.calls += 1
            self._wanted += 1
            self._due.append(line)
            if not self._one_server or len(self._calls) < max(MAX_CALLS, self._wanted // 2):
                self._start_calling()

    def lines(self) -> list[Line]:
        """How every line stands now, for whoever samples them."""
        now_s = self._clock()
        return [
            Line(
                line.campaign.campaign.id,
                len(line.waiting),
                sum(size for _, size in line.under_way),
                max((now_s - began_s for began_s, _ in line.under_way), default=0.0),
            )
            for line in self._lines.values()
        ]

    def _start_calling(self) -> None:
        self._calls.add(asyncio.create_task(self._call_for_all()))

    async def _call_for_all(self) -> None:
        """Make one call after the other, for each line in its turn, until none is due."""
        try:
            while self._due:
                await self._call_for(self._due.popleft())
        finally:
            self._calls.discard(asyncio.current_task())
            if self._due:
                self._start_calling()

    async def _call_for(self, line: "_Line[Request, Outcome]") -> None:
        goes_on = False
        try:
            await self._let_join(line.waiting)
            if batch := self._depart(line):
                await self._commit(line, batch)
            goes_on = len(line.waiting) >= (WORTH_ANOTHER_CALL if line.calls > 1 else 1)
        finally:
            if goes_on:
                self._due.append(line)
            else:
                line.calls -= 1
                self._wanted -= 1
                if not line.calls:
                    del self._lines[line.key]
                    self._send_away(line)

    async def _let_join(self, waiting: Sized) -> None:
        """Return when many wait, a look at all sockets brought nobody more, another line is due, or time is up."""
        seen, until_s = 0, self._clock() + JOIN_S
        while not self._due and seen < len(waiting) < FEW and self._clock() < until_s:
            seen = len(waiting)
            await asyncio.sleep(0)

    def _depart(self, line: "_Line[Request, Outcome]") -> "list[Waiter[Request, Outcome]]":
        """Take the first in line, without those who have gone or waited too long."""
        batch: list[Waiter[Request, Outcome]] = []
        too_long_s = self._clock() - self._bounds.max_wait_s
        most = self._bounds.max_batch if self._held is None else self._held.size.limit
        # Who takes all leaves the other call nothing to do while these are answered; together they do not wait.
        in_line = len(line.waiting) + sum(size for _, size in line.under_way)
        most = min(most, max(WORTH_ANOTHER_CALL, -(-in_line // MAX_CALLS)))
        while line.waiting and len(batch) < most:
            waiter = line.waiting.popleft()
            self._waiting -= 1
            if waiter.gone:
                continue
            if waiter.since_s < too_long_s:
                waiter.receive(OVERLOADED)
            else:
                batch.append(waiter)
        return batch

    async def _commit(self, line: "_Line[Request, Outcome]", batch: "list[Waiter[Request, Outcome]]") -> None:
        began_s = self._clock()
        call = (began_s, len(batch))
        line.under_way.append(call)
        failure, said, outcomes = None, "", None
        try:
            outcomes = await self._call(line.campaign, line.shard, [waiter.request for waiter in batch])
            if len(outcomes) != len(batch):
                raise AssertionError(f"{len(outcomes)} outcomes for {len(batch)} requests")
        except StoreError as error:
            failure, said = failure_of(error), str(error)
            # Whoever waits behind a failed call would only wait to fail as well.
            self._send_away(line)
            if self._one_server and failure in UNANSWERED:
                for behind in self._due:
                    self._send_away(behind)
            _tell_unavailable(batch)
        except BaseException:
            _tell_unavailable(batch)
            raise
        finally:
            line.under_way.remove(call)
            store_s = self._clock() - began_s
        if outcomes is not None:
            self._learn(len(batch), store_s)
            if line.waiting or self._due:
                # The next batch, if it is not of a few, leaves first: the store need not wait while these are written.
                asyncio.get_running_loop().call_soon(self._deliver, line.campaign, batch, outcomes)
            else:
                self._deliver(line.campaign, batch, outcomes)
        self._observe(
            BatchReport(
                self._verb,
                len(batch),
                waited_s=began_s - batch[0].since_s,
                store_s=store_s,
                failure=failure,
                campaign_id=line.campaign.campaign.id,
                least_waited_s=began_s - batch[-1].since_s,
                error=said,
            )
        )

    def _learn(self, size: int, store_s: float) -> None:
        if self._held is not None:
            self._held.size.learn_held(size, self._held.held_s())
            if len(self._calls) == 1:
                self._held.size.learn_lone_call(size, store_s)

    def _deliver(
        self, campaign: KnownCampaign, batch: "list[Waiter[Request, Outcome]]", outcomes: list[Outcome]
    ) -> None:
        for waiter, outcome in zip(batch, outcomes, strict=True):
            if not waiter.gone:
                waiter.receive(outcome)
        self._count(campaign, outcomes)

    def _send_away(self, line: "_Line[Request, Outcome]") -> None:
        self._waiting -= len(line.waiting)
        _tell_unavailable(line.waiting)
        line.waiting.clear()


class _Line(Generic[Request, Outcome]):
    """The line before one shard; it exists while somebody stands in it or is being served."""

    def __init__(self, campaign: KnownCampaign, shard: int) -> None:
        self.campaign = campaign
        self.shard = shard
        self.key = campaign.state_keys[shard]
        self.calls = 0
        self.under_way: list[tuple[float, int]] = []
        self.waiting: deque[Waiter[Request, Outcome]] = deque()


class _Caller(Generic[Request, Outcome]):
    """Waits in a coroutine."""

    def __init__(self, request: Request, since_s: float) -> None:
        self.request = request
        self.since_s = since_s
        self.gone = False
        self.outcome: asyncio.Future[Outcome | Overloaded | StoreUnavailable]
        self.outcome = asyncio.get_running_loop().create_future()

    def receive(self, outcome: Outcome | Overloaded | StoreUnavailable) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)


def _tell_unavailable(waiting: Iterable[Waiter[Request, Outcome]]) -> None:
    for waiter in waiting:
        if not waiter.gone:
            waiter.receive(STORE_UNAVAILABLE)
