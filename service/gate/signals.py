"""Why: the breaker can only pause before it breaks if each process knows how close to breaking it is.

Batches are counted into the slots of one second, as cheaply as the hot path needs; every sample reads that second.
"""

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from service.domain.breaker import Sample, Signal
from service.store.scripts import StoreError, StoreTimeout, StoreUnreachable

ISSUE: Final = "issue"
SAMPLE_INTERVAL_S: Final = 0.1
SLOTS: Final = 10
CALL_TIME_BOUNDS_S: Final = tuple(0.001 * 1.25**step for step in range(42))
SLOW_SHARE: Final = 0.01

Failure: TypeAlias = Literal["timeout", "unreachable", "error"]


def failure_of(error: StoreError) -> Failure:
    """Return the word for a store error."""
    match error:
        case StoreTimeout():
            return "timeout"
        case StoreUnreachable():
            return "unreachable"
        case _:
            return "error"


@dataclass(frozen=True, slots=True)
class BatchReport:
    """How one batch fared: how long its oldest request waited, then how long the store took, and what went wrong."""

    verb: str
    size: int
    waited_s: float
    store_s: float
    failure: Failure | None


class _Slot:
    """What was counted between two samples."""

    __slots__ = ("call_times", "calls", "failures", "requests", "waited_s")

    def __init__(self) -> None:
        self.requests = 0
        self.waited_s = 0.0
        self.calls = 0
        self.failures = 0
        self.call_times = [0] * len(CALL_TIME_BOUNDS_S)


class Signals:
    """Measures one process, in one event loop.

    One accident is no signal: a single slow or failed call in a second never shows.
    """

    def __init__(self) -> None:
        self._slots = [_Slot() for _ in range(SLOTS)]
        self._at = 0
        self._sampled_at_s: float | None = None

    def observe(self, report: BatchReport) -> None:
        """Count a batch. Only issue batches count: a busy redemption never pauses issuance."""
        if report.verb != ISSUE:
            return
        slot = self._slots[self._at]
        slot.requests += report.size
        slot.waited_s += report.waited_s * report.size
        self.observe_call(report.store_s, report.failure)

    def observe_call(self, store_s: float, failure: Failure | None) -> None:
        """Count a store call that belongs to no batch: while nobody is let in, the breaker's own are all there is."""
        slot = self._slots[self._at]
        slot.calls += 1
        if failure is not None:
            slot.failures += 1
        if failure is None or failure == "timeout":
            # The last bound stands for all that is slower still; a call refused at once says nothing about speed.
            slot.call_times[bisect_left(CALL_TIME_BOUNDS_S, store_s, hi=len(CALL_TIME_BOUNDS_S) - 1)] += 1

    def sample(self, now_s: float) -> Sample:
        """Return the readings of the last second, and begin the next slot. Call it every SAMPLE_INTERVAL_S.

        `now_s` is monotonic; how late it comes is the event loop's lag.
        """
        late_s = 0.0 if self._sampled_at_s is None else now_s - self._sampled_at_s - SAMPLE_INTERVAL_S
        self._sampled_at_s = now_s
        requests = sum(slot.requests for slot in self._slots)
        calls = sum(slot.calls for slot in self._slots)
        failures = sum(slot.failures for slot in self._slots)
        readings = {
            Signal.STORE_FAILURES: failures / calls if failures > 1 else 0.0,
            Signal.STORE_CALL_TIME: self._slow_call_s(),
            Signal.QUEUE_WAIT: sum(slot.waited_s for slot in self._slots) / requests if requests else 0.0,
            Signal.EVENT_LOOP_LAG: max(0.0, late_s),
        }
        self._at = (self._at + 1) % SLOTS
        self._slots[self._at] = _Slot()
        return readings

    def _slow_call_s(self) -> float:
        counts = [sum(times) for times in zip(*(slot.call_times for slot in self._slots), strict=True)]
        overlooked = max(1, int(sum(counts) * SLOW_SHARE))
        for bound_s, count in zip(reversed(CALL_TIME_BOUNDS_S), reversed(counts), strict=True):
            overlooked -= count
            if overlooked < 0:
                return bound_s
        return 0.0
