"""Why: faults come in an order that nobody thinks of, so histories are drawn by a seed and lived in simulated time.

The breakers are the real ones. What is modelled here, in few lines, is the store's compare-and-set, its messages and
its ballots (the real ones have tests of their own), and a load: campaigns that want more or less than there is room
for. Nothing sleeps and nothing reads a clock.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from service.domain.breaker import NEVER_CHANGED, BreakerPolicy, BreakerRecord, Mode
from service.domain.ramp import ALL
from service.domain.saturation import Sample, Signal
from service.gate.breaker import Breaker
from service.gate.signals import Reading, Signals
from service.store.breaker_state import BALLOT_SILENT_AFTER_MS, WHOLE, Ballot, Proposal, Pulse, SharedBreakerState
from service.store.scripts import StoreError, StoreTimeout, StoreUnreachable
from service.store.vitals import Vitals

POLICY: Final = BreakerPolicy(
    samples_to_trip=2,
    minimum_pause_ms=2_000,
    maximum_pause_ms=8_000,
    well_before_reopening_ms=1_000,
    ramp_ms=3_000,
    maximum_ramp_halvings=2,
    trip_memory_ms=600_000,
)
STEP_S: Final = 0.5
CAMPAIGNS: Final = ("spring", "summer")
MOST_REPLICAS: Final = 4


class ModelStore:
    """The store: records that change by compare-and-set, ballots that fall silent, and links that may be cut."""

    def __init__(self, clock_ahead_s: float) -> None:
        self.clock_ahead_s = clock_ahead_s
        self.now_s = 0.0
        self.state = "up"
        self.loses_answers = 0.0
        self.records: dict[str, BreakerRecord] = {}
        self.ballots: dict[str, tuple[int, Ballot]] = {}
        self.listeners: dict[str, Breaker] = {}
        self.messages: list[tuple[Breaker, str, BreakerRecord]] = []
        self.history: list[tuple[float, str, BreakerRecord, BreakerRecord]] = []

    @property
    def now_ms(self) -> int:
        return round((self.now_s + self.clock_ahead_s) * 1000)

    def record(self, campaign_id: str) -> BreakerRecord:
        return self.records.get(campaign_id, NEVER_CHANGED)


class ModelledState(SharedBreakerState):
    """One replica's way to the model."""

    def __init__(self, store: ModelStore, dice: random.Random) -> None:
        self._store = store
        self._dice = dice

    async def pulse(self, replica_id: str, ballot: Ballot, vitals: Vitals | None = None) -> Pulse:
        del vitals
        store = self._store
        self._reach()
        store.ballots[replica_id] = (store.now_ms, ballot)
        live = {name: b for name, (at_ms, b) in store.ballots.items() if store.now_ms - at_ms < BALLOT_SILENT_AFTER_MS}
        self._answer()
        return Pulse(store.now_ms, dict(store.records), live)

    async def change(self, proposal: Proposal) -> BreakerRecord:
        store, campaign_id = self._store, proposal.campaign_id
        self._reach()
        before = store.record(campaign_id)
        if before.epoch == proposal.built_on and proposal.record is not None:
            store.records[campaign_id] = proposal.record
            store.history.append((store.now_s, campaign_id, before, proposal.record))
            store.messages += [(listener, campaign_id, proposal.record) for listener in store.listeners.values()]
        self._answer()
        return store.record(campaign_id)

    def _reach(self) -> None:
        if self._store.state == "stopped":
            raise StoreTimeout
        if self._store.state == "dead":
            raise StoreUnreachable

    def _answer(self) -> None:
        if self._dice.random() < self._store.loses_answers:
            raise StoreTimeout


@dataclass
class Load:
    """What the crowd wants of each campaign, in shares of the room there is, and which replicas run late."""

    wanted: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CAMPAIGNS, 0.1))
    lagging: set[str] = field(default_factory=set)


class Weather(Signals):
    """A replica's signals, as the load and the store make them."""

    def __init__(self, name: str, load: Load, store: ModelStore) -> None:
        super().__init__(cpu_clock=lambda: 0.0)
        self._name, self._load, self._store = name, load, store
        self._silent_since_s: float | None = None
        self.breaker: Breaker | None = None
        self.whole_is_sick = False

    def sample(self, now_s: float, own_call_s: float = 0.0) -> Reading:
        del own_call_s
        assert self.breaker is not None
        breaker = self.breaker
        if self._store.state == "up":
            self._silent_since_s = None
        elif self._silent_since_s is None:
            self._silent_since_s = now_s
        silence_s = 0.0 if self._silent_since_s is None else now_s - self._silent_since_s + 0.1
        admitted = {
            name: wanted * min(breaker.share_permille, breaker._shares.get(name, ALL)) / ALL
            for name, wanted in self._load.wanted.items()
        }
        crowded = sorted(admitted.values())[:-1]
        whole: Sample = {
            Signal.STORE_SILENCE: silence_s,
            Signal.QUEUE_WAIT: 2.0 if sum(crowded) > 1 else 0.0,
            Signal.EVENT_LOOP_LAG: 1.0 if self._name in self._load.lagging else 0.0,
        }
        self.whole_is_sick = any(value >= POLICY.of(signal).trip for signal, value in whole.items())
        campaigns: Mapping[str, Sample] = {
            name: {Signal.QUEUE_WAIT: 2.0 if share > 1 else 0.0} for name, share in admitted.items()
        }
        return Reading(whole, campaigns)


class Replica:
    """One process: its real breaker, over a clock of its own that neither agrees with others nor runs quite alike."""

    def __init__(self, name: str, world: "World") -> None:
        self._world = world
        self.name = name
        self.born_s = world.store.now_s
        self._clock_ahead_s = world.dice.uniform(0, 100_000)
        self._pace = world.dice.uniform(0.99, 1.01)
        self.weather = Weather(name, world.load, world.store)
        shared = ModelledState(world.store, world.dice)
        self.breaker = Breaker(self.weather, shared, POLICY, name, None, self._clock, world.dice.random)
        self.weather.breaker = self.breaker
        self.sick_s = 0.0

    def _clock(self) -> float:
        return self._clock_ahead_s + self._world.store.now_s * self._pace

    async def tick(self) -> None:
        await self.breaker.tick()
        self.sick_s = self.sick_s + STEP_S if self.weather.whole_is_sick else 0.0


class World:
    """Replicas, a store and a crowd, with a fate drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.store = ModelStore(self.dice.uniform(0, 2e9))
        self.load = Load()
        self.replicas: list[Replica] = []
        self.faults_until_s = self.dice.uniform(3, 12)
        self.quiet_since_s = 0.0
        self.spoke_at_s = -1e9
        self._born = 0
        for _replica in range(self.dice.randint(1, 3)):
            self.give_birth()

    def give_birth(self) -> None:
        """Start one process."""
        self._born += 1
        replica = Replica(f"replica-{self._born}", self)
        self.replicas.append(replica)
        self.store.listeners[replica.name] = replica.breaker

    async def step(self) -> None:
        """Let half a second pass, with whatever it brings."""
        self.store.now_s += STEP_S
        if self.store.now_s < self.faults_until_s:
            await self._suffer()
        else:
            self._calm()
        # Nobody knows whose turn it is.
        for replica in self.dice.sample(self.replicas, len(self.replicas)):
            await replica.tick()
        self._deliver()

    def _deliver(self) -> None:
        """Most messages arrive, some late and after what was said later."""
        messages, self.store.messages = self.store.messages, []
        for listener, campaign_id, record in messages:
            if self.dice.random() < 0.3:
                self.store.messages.append((listener, campaign_id, record))
            else:
                listener._adopt_newer(campaign_id, record)

    async def _suffer(self) -> None:
        dice, store = self.dice, self.store
        if dice.random() > 0.4:
            return
        self.quiet_since_s = store.now_s
        replica = dice.choice(self.replicas)
        match dice.randrange(8):
            case 0:
                self.load.wanted[dice.choice(CAMPAIGNS)] = dice.choice([0.1, 0.1, 0.5, 1.5, 10.0])
            case 1:
                self.load.lagging ^= {replica.name}
            case 2 if len(self.replicas) > 1:
                self.replicas.remove(replica)
                store.listeners.pop(replica.name, None)
            case 3 if len(self.replicas) < MOST_REPLICAS:
                self.give_birth()
            case 4:
                store.listeners.pop(replica.name, None)
            case 5:
                store.listeners.update({replica.name: replica.breaker for replica in self.replicas})
            case 6:
                store.state = dice.choice(["up", "up", "stopped", "dead"])
                store.loses_answers = dice.choice([0.0, 0.0, 0.3])
            case 7:
                await self._speak(replica)

    async def _speak(self, replica: Replica) -> None:
        mode, ttl_s = self.dice.choice(list(Mode)), self.dice.uniform(1, 5)
        self.spoke_at_s = self.store.now_s
        try:
            await replica.breaker.override(mode, "mei", "a drill", ttl_s, self.dice.choice([WHOLE, *CAMPAIGNS]))
        except StoreError:
            return

    def _calm(self) -> None:
        self.store.state, self.store.loses_answers = "up", 0.0
        self.load.wanted.update(dict.fromkeys(CAMPAIGNS, 0.1))
        self.load.lagging.clear()
        self.store.listeners.update({replica.name: replica.breaker for replica in self.replicas})
