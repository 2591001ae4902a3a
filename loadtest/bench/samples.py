"""Why: what was measured is kept as it was, run by run, so that everybody can do the arithmetic again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Final


class Load(StrEnum):
    """One kind of request at one system; where none is named it is Tidegate."""

    ISSUE = "issue"
    PLAIN_FASTAPI = "issue, FastAPI and redis-py"
    NGINX = "issue, nginx and Lua"
    BARE = "fixed answer, bare ASGI"
    REDEEM = "redeem"
    REPLAY = "replay"
    REPLAY_TOGETHER = "replay, by all of a batch"
    SOLD_OUT = "sold out"
    PER_USER_LIMIT = "over the user's limit"
    RATE_LIMITED = "rate limited"
    PAUSED = "paused"


REFUSALS: Final = (Load.REPLAY, Load.REPLAY_TOGETHER, Load.SOLD_OUT, Load.PER_USER_LIMIT, Load.RATE_LIMITED)


class Group(StrEnum):
    """Figures that are measured together, by the names that the command line knows."""

    ISSUE = "issue"
    REDEEM = "redeem"
    STORE = "store"
    MEMORY = "memory"
    LATENCY = "latency"
    REFUSALS = "refusals"
    PAUSED = "paused"
    IDLE = "idle"


LOADS: Final[Mapping[Group, tuple[Load, ...]]] = {
    Group.ISSUE: (Load.ISSUE, Load.PLAIN_FASTAPI, Load.NGINX, Load.BARE),
    Group.REDEEM: (Load.ISSUE, Load.REDEEM),
    Group.STORE: (Load.ISSUE, Load.PLAIN_FASTAPI, Load.NGINX),
    Group.MEMORY: (),
    Group.LATENCY: (Load.ISSUE,),
    Group.REFUSALS: (Load.ISSUE, *REFUSALS),
    Group.PAUSED: (Load.ISSUE, Load.PAUSED),
    Group.IDLE: (),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one load: what was answered in what time, and whose CPU time it took.

    `attempt` is above 1 where the breaker paused issuance in the middle of the runs before.
    """

    load: Load
    round: int
    connections: int
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    service_cpu_s: float
    store_cpu_s: float
    people_cpu_s: float
    store_calls: int
    attempt: int = 1

    @property
    def per_second(self) -> float:
        """Requests answered in a second."""
        return self.requests / self.seconds

    @property
    def service_us(self) -> float:
        """The service's CPU time for one request."""
        return self.service_cpu_s / self.requests * 1e6

    @property
    def store_us(self) -> float:
        """The store's CPU time for one request."""
        return self.store_cpu_s / self.requests * 1e6

    @property
    def cpu_us(self) -> float:
        """The CPU time of service and store for one request."""
        return self.service_us + self.store_us


@dataclass(frozen=True, slots=True)
class Paced:
    """One run at a fixed pace; times count from the moment at which a request was due; `attempt` as a Sample has it.

    `late_p99_ms` is how much of that may be the people's own: how late they woke up on a core that they share.
    """

    round: int
    connections: int
    per_second: float
    requests: int
    p50_ms: float
    p99_ms: float
    late_p99_ms: float
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Idle:
    """The median time of one issue when nothing else happens: through the group commit, and as a bare EVALSHA."""

    round: int
    group_commit_us: float
    evalsha_us: float


@dataclass(frozen=True, slots=True)
class Growth:
    """What a coupon costs the store in a campaign of `coupons`: in all, at its end, and in turns in a younger one.

    That one has about `early_coupons`; both were issued in batches of `batch`.
    """

    coupons: int
    early_coupons: int
    batch: int
    bytes_per_coupon: float
    resident_bytes_per_coupon: float
    early_us: Sequence[float]
    late_us: Sequence[float]


@dataclass(frozen=True, slots=True)
class Findings:
    """All that a bench has found; `missing` says why a load could not be run."""

    samples: Sequence[Sample] = ()
    paced: Sequence[Paced] = ()
    idle: Sequence[Idle] = ()
    growth: Growth | None = None
    missing: Mapping[Load, str] = field(default_factory=dict)
    profile: Mapping[str, float] = field(default_factory=dict)

    def connections(self) -> list[int]:
        """The numbers of connections that were used, the smallest first."""
        return sorted({sample.connections for sample in self.samples})

    def middle(self, load: Load, connections: int, value: Callable[[Sample], float]) -> float | None:
        """The median of a value over the rounds, or None where there are none."""
        values = [value(sample) for sample in self._of(load, connections)]
        return median(values) if values else None

    def ratio(self, load: Load, to: Load, connections: int, value: Callable[[Sample], float]) -> float | None:
        """The median of the rounds' own ratios: what slows a whole round down slows both. None where there are none."""
        others = {sample.round: value(sample) for sample in self._of(to, connections)}
        ratios = [
            value(sample) / others[sample.round] for sample in self._of(load, connections) if others.get(sample.round)
        ]
        return median(ratios) if ratios else None

    def _of(self, load: Load, connections: int) -> list[Sample]:
        return [sample for sample in self.samples if sample.load is load and sample.connections == connections]
