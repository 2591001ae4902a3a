"""Why: issuance must pause before it breaks and reopen without a herd, and that decision must be provable on paper.

So the breaker is a machine over samples: readings become tripped signals, signals a verdict, a verdict the next
record. Business refusals (sold out, over a limit) never enter here.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Final, TypeAlias, assert_never

ALL: Final = 1000
OPERATOR: Final = "operator"
PAUSE_OVER: Final = "pause_over"
RAMP_OVER: Final = "ramp_over"
NOT_OBSERVED: Final = "not_observed"


class Signal(StrEnum):
    """What a process measures of its own saturation, the gravest first."""

    STORE_FAILURES = "store_failures"
    STORE_CALL_TIME = "store_call_time"
    QUEUE_WAIT = "queue_wait"
    EVENT_LOOP_LAG = "event_loop_lag"


Sample: TypeAlias = Mapping[Signal, float]
"""One reading a signal: seconds, or a share between 0 and 1. A missing signal had nothing to measure and is well."""


@dataclass(frozen=True, slots=True)
class Threshold:
    """A signal trips at `trip` and stays tripped until it is below `clear`."""

    trip: float
    clear: float

    def __post_init__(self) -> None:
        if not 0 < self.clear <= self.trip:
            raise ValueError(f"clear must be above 0 and at most trip, not {self.clear} and {self.trip}")


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """Every figure the breaker decides by. Raises ValueError for figures that contradict each other."""

    queue_wait: Threshold = Threshold(trip=0.5, clear=0.1)
    store_call_time: Threshold = Threshold(trip=0.5, clear=0.2)
    store_failures: Threshold = Threshold(trip=0.25, clear=0.05)
    event_loop_lag: Threshold = Threshold(trip=0.25, clear=0.1)
    samples_to_trip: int = 3
    minimum_pause_ms: int = 5_000
    maximum_pause_ms: int = 60_000
    well_before_reopening_ms: int = 2_000
    ramp_ms: int = 30_000
    ramp_start_permille: int = 50
    trip_memory_ms: int = 120_000

    def __post_init__(self) -> None:
        if self.samples_to_trip < 1 or self.well_before_reopening_ms < 0 or self.trip_memory_ms < 0:
            raise ValueError("samples_to_trip must be at least 1, and no time below 0")
        if not 0 < self.minimum_pause_ms <= self.maximum_pause_ms:
            raise ValueError("minimum_pause_ms must be above 0 and at most maximum_pause_ms")
        if self.ramp_ms < 1 or not 0 < self.ramp_start_permille < ALL:
            raise ValueError(f"ramp_ms must be above 0, and ramp_start_permille between 0 and {ALL}")

    def threshold(self, signal: Signal) -> Threshold:
        """Return where `signal` trips and clears."""
        match signal:
            case Signal.STORE_FAILURES:
                return self.store_failures
            case Signal.STORE_CALL_TIME:
                return self.store_call_time
            case Signal.QUEUE_WAIT:
                return self.queue_wait
            case Signal.EVENT_LOOP_LAG:
                return self.event_loop_lag
            case _:
                assert_never(signal)


@dataclass(frozen=True, slots=True)
class Watch:
    """The signals tripped now, the gravest first, and for how many samples in a row each has been at its trip."""

    tripped: tuple[Signal, ...] = ()
    streaks: Mapping[Signal, int] = field(default_factory=dict)


def evaluate(sample: Sample, before: Watch, policy: BreakerPolicy) -> Watch:
    """Return what is tripped after one more sample."""
    streaks: dict[Signal, int] = {}
    tripped: list[Signal] = []
    for signal in Signal:
        reading, threshold = sample.get(signal, 0.0), policy.threshold(signal)
        streaks[signal] = before.streaks.get(signal, 0) + 1 if reading >= threshold.trip else 0
        still = signal in before.tripped and reading >= threshold.clear
        if still or streaks[signal] >= policy.samples_to_trip:
            tripped.append(signal)
    return Watch(tuple(tripped), streaks)


def quorum(votes: Mapping[str, str]) -> str:
    """Return the commonest reason if most of the live replicas vote sick, else nothing.

    A vote is a replica's reason, empty when it is well. One replica alone is its own majority.
    """
    reasons = [reason for reason in votes.values() if reason]
    return Counter(sorted(reasons)).most_common(1)[0][0] if 2 * len(reasons) > len(votes) else ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why whatever the breaker guards is sick, or empty and since when it has been well. At first nobody knows."""

    sick: str = NOT_OBSERVED
    well_since_ms: int = 0


def judge(before: Verdict, sick: str, now_ms: int) -> Verdict:
    """Return the verdict after one more look."""
    return Verdict(sick, now_ms if sick or before.sick else before.well_since_ms)


class State(StrEnum):
    """Closed issues, open issues nothing, half-open issues to a growing share of the users."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Issuance(StrEnum):
    """What the public is told."""

    ISSUING = "issuing"
    PAUSED = "paused"
    RECOVERING = "recovering"


class Mode(StrEnum):
    """Who decides: the signals, or the operator."""

    AUTO = "auto"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"


@dataclass(frozen=True, slots=True)
class Override:
    """The operator's word: a mode, by whom, why, and until when (None: until it is taken back)."""

    mode: Mode = Mode.AUTO
    actor: str = ""
    reason: str = ""
    expires_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class BreakerRecord:
    """Where a breaker stands. `epoch` grows with every change; `reason` is a word that says why this state began.

    `pause_ms` is the length of the present or last pause.
    """

    epoch: int = 0
    state: State = State.CLOSED
    since_ms: int = 0
    reason: str = ""
    pause_ms: int = 0
    override: Override = Override()

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "BreakerRecord":
        """Read what `to_json` wrote, and what a newer version may have added. Raises ValueError if it is no record."""
        try:
            fields = json.loads(text)
            override = fields["override"]
            return BreakerRecord(
                int(fields["epoch"]),
                State(fields["state"]),
                int(fields["since_ms"]),
                str(fields["reason"]),
                int(fields["pause_ms"]),
                Override(Mode(override["mode"]), override["actor"], override["reason"], override["expires_at_ms"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no breaker record: {error}") from error

    @property
    def issuance(self) -> Issuance:
        """The state in the public's words."""
        match self.state:
            case State.CLOSED:
                return Issuance.ISSUING
            case State.OPEN:
                return Issuance.PAUSED
            case State.HALF_OPEN:
                return Issuance.RECOVERING
            case _:
                assert_never(self.state)


def advance(record: BreakerRecord, verdict: Verdict, now_ms: int, policy: BreakerPolicy) -> BreakerRecord:
    """Return the next record, of the next epoch; the very same one if nothing changes. One step at a time."""
    expires_at_ms = record.override.expires_at_ms
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        return replace(record, epoch=record.epoch + 1, override=Override())
    if record.override.mode is not Mode.AUTO:
        return record
    elapsed_ms = now_ms - record.since_ms
    well = not verdict.sick and now_ms - verdict.well_since_ms >= policy.well_before_reopening_ms
    match record.state:
        case State.CLOSED if verdict.sick:
            recent = record.pause_ms > 0 and elapsed_ms < policy.trip_memory_ms
            return _moved(record, State.OPEN, verdict.sick, now_ms, _pause_ms(record, recent, policy))
        case State.OPEN if well and elapsed_ms >= record.pause_ms:
            return _moved(record, State.HALF_OPEN, PAUSE_OVER, now_ms, record.pause_ms)
        case State.HALF_OPEN if verdict.sick:
            return _moved(record, State.OPEN, verdict.sick, now_ms, _pause_ms(record, True, policy))
        case State.HALF_OPEN if well and elapsed_ms >= policy.ramp_ms:
            return _moved(record, State.CLOSED, RAMP_OVER, now_ms, record.pause_ms)
        case _:
            return record


def overridden(record: BreakerRecord, override: Override, now_ms: int, policy: BreakerPolicy) -> BreakerRecord:
    """Return the record after the operator's word. Back in `auto`, what was forced open reopens by the ramp."""
    match override.mode:
        case Mode.AUTO:
            # To be automatic is to have nothing that could expire.
            state, override = record.state, replace(override, expires_at_ms=None)
        case Mode.FORCED_OPEN:
            state = State.OPEN
        case Mode.FORCED_CLOSED:
            state = State.CLOSED
        case _:
            assert_never(override.mode)
    if state is record.state:
        return replace(record, epoch=record.epoch + 1, override=override)
    pause_ms = policy.minimum_pause_ms if state is State.OPEN else record.pause_ms
    return replace(_moved(record, state, OPERATOR, now_ms, pause_ms), override=override)


def share_permille(record: BreakerRecord, now_ms: int, policy: BreakerPolicy) -> int:
    """Return how many in a thousand users may pass: all, none, or the ramp's value."""
    match record.state:
        case State.CLOSED:
            return ALL
        case State.OPEN:
            return 0
        case State.HALF_OPEN:
            elapsed_ms = min(max(now_ms - record.since_ms, 0), policy.ramp_ms)
            return policy.ramp_start_permille + (ALL - policy.ramp_start_permille) * elapsed_ms // policy.ramp_ms
        case _:
            assert_never(record.state)


def ramp_begins_in_ms(record: BreakerRecord, now_ms: int, policy: BreakerPolicy) -> int:
    """Return the time to the beginning of the ramp, as far as anybody knows; below 0 when it has begun."""
    if record.state is not State.OPEN:
        return record.since_ms - now_ms
    begins_at_ms = record.since_ms + record.pause_ms
    if record.override.mode is Mode.FORCED_OPEN:
        expires_at_ms = record.override.expires_at_ms
        begins_at_ms = max(begins_at_ms, now_ms + policy.maximum_pause_ms if expires_at_ms is None else expires_at_ms)
    return max(0, begins_at_ms - now_ms)


def ramp_reaches_after_ms(place: int, policy: BreakerPolicy) -> int:
    """Return how far into the ramp the share passes `place`, 0 to 999, so that a user of that place may pass."""
    beyond_start = max(0, place + 1 - policy.ramp_start_permille)
    return -(-beyond_start * policy.ramp_ms // (ALL - policy.ramp_start_permille))


def ramp_invites_after_ms(draw: float, policy: BreakerPolicy) -> int:
    """Return how far into the ramp an unknown caller should come back who drew `draw`, 0 to 1.

    It inverts the area under the ramp, so that uniform draws arrive in proportion to the share open at that time.
    """
    start = policy.ramp_start_permille / ALL
    return round(policy.ramp_ms * (math.sqrt(start**2 + (1 - start**2) * draw) - start) / (1 - start))


def _moved(record: BreakerRecord, state: State, reason: str, now_ms: int, pause_ms: int) -> BreakerRecord:
    return BreakerRecord(record.epoch + 1, state, now_ms, reason, pause_ms, record.override)


def _pause_ms(record: BreakerRecord, again: bool, policy: BreakerPolicy) -> int:
    longer = 2 * record.pause_ms if again else 0
    return min(max(longer, policy.minimum_pause_ms), policy.maximum_pause_ms)
