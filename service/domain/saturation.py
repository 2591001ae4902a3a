"""Why: a breaker can only pause before something breaks if "too much" is a number, and one accident is not a trend.

Readings become tripped signals, signals and votes a verdict. Business refusals (sold out, over a limit) never enter.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

NOT_OBSERVED: Final = "not_observed"


class Signal(StrEnum):
    """What is measured of saturation, the gravest first."""

    STORE_FAILURES = "store_failures"
    STORE_TIMEOUTS = "store_timeouts"
    STORE_SILENCE = "store_silence"
    STORE_CALL_TIME = "store_call_time"
    STORE_MEMORY = "store_memory"
    STORE_DISK_DELAY = "store_disk_delay"
    QUEUE_WAIT = "queue_wait"
    QUEUE_STANDING = "queue_standing"
    IN_FLIGHT = "in_flight"
    EVENT_LOOP_LAG = "event_loop_lag"
    PROCESS_CPU = "process_cpu"
    REDEMPTION_BACKLOG = "redemption_backlog"
    JOB_WAIT = "job_wait"


GRAVITY: Final = tuple(Signal)

Sample: TypeAlias = Mapping[Signal, float]
"""One reading a signal, in the units of `Thresholds`. A missing signal had nothing to measure and is well."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A signal trips at `trip` and stays tripped until it is below `clear`."""

    trip: float
    clear: float

    def __post_init__(self) -> None:
        if not 0 < self.clear <= self.trip:
            raise ValueError(f"clear must be above 0 and at most trip, not {self.clear} and {self.trip}")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where each signal trips and clears: a field for each, of the signal's name.

    Times are in seconds and shares between 0 and 1; `store_disk_delay` is delayed fsyncs a second, `in_flight` is
    requests against the adaptive limit, `process_cpu` is in cores, `redemption_backlog` in requests that wait.
    """

    queue_wait: Threshold = Threshold(trip=0.5, clear=0.1)
    queue_standing: Threshold = Threshold(trip=0.5, clear=0.1)
    in_flight: Threshold = Threshold(trip=1.5, clear=1.0)
    store_call_time: Threshold = Threshold(trip=0.5, clear=0.2)
    store_silence: Threshold = Threshold(trip=0.5, clear=0.05)
    store_timeouts: Threshold = Threshold(trip=0.1, clear=0.02)
    store_failures: Threshold = Threshold(trip=0.25, clear=0.05)
    event_loop_lag: Threshold = Threshold(trip=0.25, clear=0.1)
    # One event loop at its peak fills one core, and that is no trouble: trouble shows in the lag first.
    process_cpu: Threshold = Threshold(trip=1.5, clear=1.2)
    store_memory: Threshold = Threshold(trip=0.95, clear=0.9)
    store_disk_delay: Threshold = Threshold(trip=1.0, clear=0.5)
    job_wait: Threshold = Threshold(trip=900.0, clear=300.0)
    redemption_backlog: Threshold = Threshold(trip=4096.0, clear=512.0)

    def of(self, signal: Signal) -> Threshold:
        """Return where `signal` trips and clears."""
        threshold: Threshold = getattr(self, signal)
        return threshold


@dataclass(frozen=True, slots=True)
class Watch:
    """The signals tripped now, the gravest first, and for how many samples in a row each has been at its trip."""

    tripped: tuple[Signal, ...] = ()
    streaks: Mapping[Signal, int] = field(default_factory=dict)


def evaluate(sample: Sample, before: Watch, thresholds: Thresholds, samples_to_trip: int) -> Watch:
    """Return what is tripped after one more sample."""
    streaks: dict[Signal, int] = {}
    tripped: list[Signal] = []
    for signal, reading in sample.items():
        if not reading:
            continue
        threshold = thresholds.of(signal)
        if reading >= threshold.trip:
            streaks[signal] = before.streaks.get(signal, 0) + 1
        still = signal in before.tripped and reading >= threshold.clear
        if still or streaks.get(signal, 0) >= samples_to_trip:
            tripped.append(signal)
    return Watch(tuple(sorted(tripped, key=GRAVITY.index)), streaks)


def quorum(votes: Iterable[str]) -> str:
    """Return the commonest reason if most of the live replicas vote sick, else nothing.

    A vote is a replica's reason, empty when it is well. One replica alone is its own majority.
    """
    votes = list(votes)
    reasons = [reason for reason in votes if reason]
    return Counter(sorted(reasons)).most_common(1)[0][0] if 2 * len(reasons) > len(votes) else ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why whatever the breaker guards is sick, or empty and since when it has been well. At first nobody knows."""

    sick: str = NOT_OBSERVED
    well_since_ms: int = 0

    def is_well_for(self, time_ms: int, now_ms: int) -> bool:
        """Tell whether it has been well for so long."""
        return not self.sick and now_ms - self.well_since_ms >= time_ms


def judge(before: Verdict, sick: str, now_ms: int) -> Verdict:
    """Return the verdict after one more look."""
    if not sick and not before.sick:
        return before
    return Verdict(sick, now_ms)
