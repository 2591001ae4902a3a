"""Why: the breaker can only pause before it breaks if each process knows how close to breaking it is.

Batches are counted into the slots of one second, as cheaply as the hot path needs; every sample reads that second and
looks at the lines as they stand. What one campaign's own line says is kept apart from what it does to the others.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Literal, NamedTuple, TypeAlias

from service.domain.concurrency import ConcurrencyLimit
from service.domain.saturation import Sample, Signal
from service.gate.meters import SLOTS, TOGETHER, CampaignMeters, Line
from service.store.scripts import StoreError, StoreTimeout, StoreUnreachable

ISSUE: Final = "issue"
SAMPLE_INTERVAL_S: Final = 0.1
CALL_TIME_BOUNDS_S: Final = tuple(0.001 * 1.25**step for step in range(42))
SLOW_SHARE: Final = 0.01

Failure: TypeAlias = Literal["timeout", "unreachable", "error"]
UNANSWERED: Final[tuple[Failure | None, ...]] = ("timeout", "unreachable")
"""After these the store still owes an answer; an error is one."""


def failure_of(error: StoreError) -> Failure:
    """Return the word for a store error."""
    match error:
        case StoreTimeout():
            return "timeout"
        case StoreUnreachable():
            return "unreachable"
        case _:
            return "error"


class BatchReport(NamedTuple):
    """How one batch fared: how long its oldest request waited, then how long the store took, and what went wrong.

    `least_waited_s` is how long its youngest request waited: above 0 where the line was longer than a batch. `error` is
    what the store or the connection said went wrong.
    """

    verb: str
    size: int
    waited_s: float
    store_s: float
    failure: Failure | None
    campaign_id: str
    least_waited_s: float
    error: str = ""


class Reading(NamedTuple):
    """One sample of the process, and one of each campaign that has neighbours to protect from it."""

    whole: Sample
    campaigns: Mapping[str, Sample]


class _Slot:
    """What was counted between two samples."""

    __slots__ = ("answers", "call_times", "calls", "cpu_s", "failures", "seconds", "timeouts")

    def __init__(self) -> None:
        self.calls = 0
        self.answers = 0
        self.failures = 0
        self.timeouts = 0
        self.call_times = [0] * len(CALL_TIME_BOUNDS_S)
        self.cpu_s = 0.0
        self.seconds = 0.0

    def slowest(self) -> int:
        """The bound of the slowest call, by its place; -1 where there was none."""
        return max((place for place, count in enumerate(self.call_times) if count), default=-1)


def nobody_waits() -> Iterable[Line]:
    """The lines of a process that has none."""
    return ()


class Signals:
    """Measures one process, in one event loop.

    One accident is no signal: a single failed call in a second never shows, nor do slow ones that end together.
    `issuing` and `redeeming` tell how the lines of each verb stand; `cpu_clock` is the process's CPU time in seconds.
    """

    def __init__(
        self,
        issuing: Callable[[], Iterable[Line]] = nobody_waits,
        redeeming: Callable[[], Iterable[Line]] = nobody_waits,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._issuing = issuing
        self._redeeming = redeeming
        self._cpu_clock = cpu_clock
        self._slots = [_Slot() for _ in range(SLOTS)]
        self._at = 0
        self._sampled_at_s: float | None = None
        self._cpu_s = cpu_clock()
        self._went_without_answer = False
        self._unanswered_since_s: float | None = None
        self.limit = ConcurrencyLimit()
        self.campaigns = CampaignMeters()

    def observe(self, report: BatchReport) -> None:
        """Count a batch. Only issue batches count: a busy redemption shows as a backlog, or not at all."""
        if report.verb != ISSUE:
            return
        served_in_s = report.store_s if report.failure is None else 0.0
        self.campaigns.count(report.campaign_id, report.size, report.waited_s, report.least_waited_s, served_in_s)
        self.observe_call(report.store_s, report.failure)

    def observe_call(self, store_s: float, failure: Failure | None) -> None:
        """Count a store call that belongs to no batch: while nobody is let in, the breaker's own are all there is."""
        slot = self._slots[self._at]
        slot.calls += 1
        self._went_without_answer = failure in UNANSWERED
        if not self._went_without_answer:
            slot.answers += 1
        if failure is not None:
            slot.failures += 1
        if failure == "timeout":
            slot.timeouts += 1
        if failure is None or failure == "timeout":
            # The last bound stands for all that is slower still; a call refused at once says nothing about speed.
            slot.call_times[bisect_left(CALL_TIME_BOUNDS_S, store_s, hi=len(CALL_TIME_BOUNDS_S) - 1)] += 1

    def backlog(self) -> int:
        """Return how many redemptions wait in this process."""
        return sum(line.waiting for line in self._redeeming())

    def sample(self, now_s: float, own_call_s: float = 0.0) -> Reading:
        """Return the readings of the last second, and begin the next slot. Call it every SAMPLE_INTERVAL_S.

        `now_s` is monotonic; how late it comes is the event loop's lag. `own_call_s` is the age of a store call under
        way that belongs to no batch.
        """
        slot, lines = self._slots[self._at], list(self._issuing())
        passed_s = SAMPLE_INTERVAL_S if self._sampled_at_s is None else now_s - self._sampled_at_s
        late_s = max(0.0, passed_s - SAMPLE_INTERVAL_S)
        self._sampled_at_s = now_s
        cpu_s = self._cpu_clock()
        slot.cpu_s, slot.seconds, self._cpu_s = cpu_s - self._cpu_s, passed_s, cpu_s

        calls = sum(slot.calls for slot in self._slots)
        failures = sum(slot.failures for slot in self._slots)
        timeouts = sum(slot.timeouts for slot in self._slots)
        seconds = sum(slot.seconds for slot in self._slots)
        oldest_call_s = max([own_call_s, *(line.call_s for line in lines)])
        # While the event loop was stuck an answer may have come that nobody has read yet.
        silent_s = max(0.0, self._silent_s(slot, now_s, passed_s, oldest_call_s) - late_s)
        self._learn_limit(sum(line.in_flight for line in lines))
        metered = self.campaigns.read(lines, self.limit.limit)
        whole = {
            Signal.STORE_FAILURES: failures / calls if failures > 1 else 0.0,
            Signal.STORE_TIMEOUTS: timeouts / calls if timeouts > 1 else 0.0,
            Signal.STORE_SILENCE: silent_s,
            Signal.STORE_CALL_TIME: self._slow_call_s(),
            **metered.pop(TOGETHER),
            Signal.EVENT_LOOP_LAG: late_s,
            Signal.PROCESS_CPU: sum(slot.cpu_s for slot in self._slots) / seconds if seconds else 0.0,
        }
        self._at = (self._at + 1) % SLOTS
        self._slots[self._at] = _Slot()
        self.campaigns.begin_slot()
        return Reading(whole, metered)

    def _silent_s(self, slot: _Slot, now_s: float, passed_s: float, oldest_call_s: float) -> float:
        """How long the store has owed an answer. That a call was given up, or could not be made, changes nothing.

        A killed store refuses at once, so no call's age tells of it. When in the slot that began is not known: it
        counts from the slot's beginning, since every process must pause within half a second.
        """
        if slot.answers:
            self._unanswered_since_s = None
        if self._unanswered_since_s is None:
            owed_s = max(oldest_call_s, passed_s if self._went_without_answer else 0.0)
            self._unanswered_since_s = now_s - owed_s if owed_s else None
        return 0.0 if self._unanswered_since_s is None else now_s - self._unanswered_since_s

    def _learn_limit(self, in_flight: int) -> None:
        round_trip_s = self.campaigns.round_trip_s()
        if round_trip_s:
            self.limit = self.limit.after(round_trip_s, in_flight)

    def _slow_call_s(self) -> float:
        """How long the slowest calls took, without the worst slot: what one stall has kept is answered together."""
        *others, _worst = sorted(self._slots, key=_Slot.slowest)
        counts = [sum(times) for times in zip(*(slot.call_times for slot in others), strict=True)]
        overlooked = int(sum(counts) * SLOW_SHARE)
        for bound_s, count in zip(reversed(CALL_TIME_BOUNDS_S), reversed(counts), strict=True):
            overlooked -= count
            if overlooked < 0:
                return bound_s
        return 0.0
