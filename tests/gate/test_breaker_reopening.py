"""Twenty thousand people who were sent away come back along the ramp, and nothing pauses a second time."""

import asyncio
import heapq
import random
from collections import Counter
from typing import Final

import pytest

from service.domain.breaker import BreakerPolicy, State
from service.domain.ramp import ALL
from service.gate.breaker import Breaker
from service.gate.signals import SAMPLE_INTERVAL_S, BatchReport, Signals
from service.store.breaker_state import WHOLE
from tests.gate.simulation import ModelledState, ModelStore

POLICY: Final = BreakerPolicy()
WAITERS: Final = 20_000
ROOM_PER_SECOND: Final = 1_500
BUSY_S: Final = 3.0
PATIENCE_S: Final = 300.0


class Reopening:
    """One replica that serves so many requests a second, and a crowd that does as it is told."""

    def __init__(self, seed: int, per_second: int) -> None:
        self.dice = random.Random(seed)
        self.per_second = per_second
        self.store = ModelStore(clock_ahead_s=1e9)
        self.signals = Signals(cpu_clock=lambda: 0.0)
        shared = ModelledState(self.store, self.dice)
        clock = lambda: self.store.now_s  # noqa: E731  # as short as that
        self.breaker = Breaker(self.signals, shared, POLICY, "one", None, clock, self.dice.random)
        self.coming: list[tuple[float, str]] = []
        self.queue: list[float] = []
        self.arrivals: list[tuple[float, bool]] = []
        self.served = 0

    def arrive(self, at_s: float, user_id: str) -> None:
        """Ask for a coupon, as the fast lane does it: first unread, then by the user's name."""
        breaker = self.breaker
        self.arrivals.append((at_s, breaker.record.state is State.HALF_OPEN))
        if breaker.refuses_everybody("spring"):
            wait_s = breaker.retry_after_s("spring")
        elif not breaker.admits("spring", user_id):
            wait_s = breaker.retry_after_s("spring", user_id)
        else:
            self.queue.append(at_s)
            return
        heapq.heappush(self.coming, (at_s + wait_s, user_id))

    async def step(self, sick: bool = False) -> None:
        """Let a tenth of a second pass: callers come, a batch leaves, a sample is taken."""
        until_s = self.store.now_s + SAMPLE_INTERVAL_S
        while self.coming and self.coming[0][0] < until_s:
            at_s, user_id = heapq.heappop(self.coming)
            self.store.now_s = max(self.store.now_s, at_s)
            self.arrive(at_s, user_id)
        self.store.now_s = until_s
        room = round(self.per_second * SAMPLE_INTERVAL_S)
        batch, self.queue = self.queue[:room], self.queue[room:]
        self.served += len(batch)
        if batch:
            waited_s = 2.0 if sick else until_s - SAMPLE_INTERVAL_S - batch[0]
            report = BatchReport("issue", len(batch), max(0.0, waited_s), 0.01, None, "spring", 0.0)
            self.signals.observe(report)
        await self.breaker.tick()


@pytest.mark.parametrize(("seed", "per_second"), [(1, ROOM_PER_SECOND), (2, 3 * ROOM_PER_SECOND), (3, 400)])
def test_arrivals_after_reopening_stay_by_the_ramps_rate_and_nothing_pauses_again(seed: int, per_second: int) -> None:
    async def story() -> None:
        world = Reopening(seed, per_second)
        for _step in range(round(BUSY_S / SAMPLE_INTERVAL_S)):
            for caller in range(round(per_second * SAMPLE_INTERVAL_S)):
                world.arrive(world.store.now_s, f"before-{world.store.now_s}-{caller}")
            await world.step(sick=world.store.now_s > BUSY_S - 0.5)
        assert world.breaker.record.state is State.OPEN
        world.queue.clear()
        paused_s = world.store.now_s
        for number in range(WAITERS):
            heapq.heappush(world.coming, (paused_s + world.dice.uniform(0, 4), f"waiter-{number}"))
        world.served, world.arrivals = 0, []
        while world.coming or world.queue:
            await world.step()
            assert world.store.now_s < paused_s + PATIENCE_S
        assert world.served == WAITERS
        states = [(before.state, after.state) for _at_s, _whom, before, after in world.store.history]
        assert states[:2] == [(State.CLOSED, State.OPEN), (State.OPEN, State.HALF_OPEN)]
        assert set(states[2:]) <= {(State.HALF_OPEN, State.CLOSED)}
        assert_by_the_ramp(world, begun_s=world.store.history[1][0])

    asyncio.run(story())


def assert_by_the_ramp(world: Reopening, begun_s: float) -> None:
    """In each second after reopening no more come than a tenth above what the ramp has room for."""
    arrived = Counter(int(at_s - begun_s) for at_s, _ in world.arrivals if at_s >= begun_s)
    for second, number in arrived.items():
        at_ms = 1000 * second + 500
        share = POLICY.ramp_start_permille + (ALL - POLICY.ramp_start_permille) * min(1, at_ms / POLICY.ramp_ms)
        room = world.per_second * share / ALL
        assert number <= 1.1 * room, f"{number} came in second {second}, which has room for {room:.0f}"


def test_a_line_is_told_the_time_on_the_ramp_at_which_each_turn_comes() -> None:
    async def story() -> None:
        world = Reopening(1, ROOM_PER_SECOND)
        breaker = world.breaker
        await breaker.tick()
        assert breaker.turn_due_in_ms("spring", 500, per_second=100) == 5_000
        world.signals.observe(BatchReport("issue", 1, 2.0, 0.01, None, "spring", 2.0))
        for _step in range(4):
            await world.step()
        assert breaker.record.state is State.OPEN
        begins_in_ms = breaker.turn_due_in_ms("spring", 0, per_second=100)
        assert POLICY.minimum_pause_ms - 500 <= begins_in_ms <= POLICY.minimum_pause_ms * 1.1
        due = [breaker.turn_due_in_ms("spring", turn, per_second=100) for turn in range(0, 4_000, 100)]
        assert due == sorted(set(due))
        assert due[-1] - due[-2] == pytest.approx(1_000, abs=2)

    asyncio.run(story())


def test_status_gives_nobody_a_place() -> None:
    async def story() -> None:
        world = Reopening(1, ROOM_PER_SECOND)
        await world.breaker.tick()
        for _sample in range(4):
            world.signals.observe(BatchReport("issue", 1, 2.0, 0.01, None, "spring", 2.0))
            await world.step()
        for _look in range(1_000):
            assert world.breaker.status(WHOLE).retry_after_s >= 1
        first = [world.breaker.retry_after_s("spring") for _caller in range(200)]
        longest_s = (POLICY.minimum_pause_ms * 1.1 + POLICY.ramp_ms) / 1000
        assert max(first) <= longest_s + 1

    asyncio.run(story())
