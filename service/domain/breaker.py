"""Why: issuance must pause before it breaks and reopen without a herd, and that decision must be provable on paper.

So the breaker is a pure machine: a verdict makes the next record of the one before, and an operator's word another.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final, assert_never

from service.domain.ramp import ALL, Ramp
from service.domain.saturation import Thresholds, Verdict

OPERATOR: Final = "operator"
PAUSE_OVER: Final = "pause_over"
RAMP_OVER: Final = "ramp_over"


@dataclass(frozen=True, slots=True)
class BreakerPolicy(Thresholds):
    """Every figure the breaker decides by. Raises ValueError for figures that contradict each other."""

    hold_after_ms: int = 150
    samples_to_trip: int = 3
    minimum_pause_ms: int = 5_000
    maximum_pause_ms: int = 60_000
    pause_jitter_permille: int = 100
    well_before_reopening_ms: int = 2_000
    ramp_ms: int = 30_000
    ramp_start_permille: int = 50
    maximum_ramp_halvings: int = 3
    trip_memory_ms: int = 120_000

    def __post_init__(self) -> None:
        if self.samples_to_trip < 1 or self.well_before_reopening_ms < 0 or self.trip_memory_ms < 0:
            raise ValueError("samples_to_trip must be at least 1, and no time below 0")
        if not 0 < self.hold_after_ms <= self.store_silence.trip * 1000:
            raise ValueError("hold_after_ms must be above 0, and at most where store_silence trips")
        if not 0 < self.minimum_pause_ms <= self.maximum_pause_ms:
            raise ValueError("minimum_pause_ms must be above 0 and at most maximum_pause_ms")
        if not 0 <= self.pause_jitter_permille <= ALL:
            raise ValueError(f"pause_jitter_permille must be between 0 and {ALL}")
        if self.ramp_ms < 1 or not 0 < self.ramp_start_permille < ALL:
            raise ValueError(f"ramp_ms must be above 0, and ramp_start_permille between 0 and {ALL}")
        if not 0 <= self.maximum_ramp_halvings <= 10:
            raise ValueError("maximum_ramp_halvings must be between 0 and 10")


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
    """Who decides: the signals, the operator, or in shadow the signals without anybody being refused."""

    AUTO = "auto"
    SHADOW = "shadow"
    FORCED_OPEN = "forced_open"
    FORCED_CLOSED = "forced_closed"

    @property
    def follows_signals(self) -> bool:
        """Whether the state moves by itself."""
        return self is Mode.AUTO or self is Mode.SHADOW

    @property
    def refuses_nobody(self) -> bool:
        """Whether everybody passes, whatever was decided."""
        return self is Mode.SHADOW or self is Mode.FORCED_CLOSED


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

    `pause_ms` is the length of the present or last pause; `ramp_halvings` is how often the present or next ramp was
    halved.
    """

    epoch: int = 0
    state: State = State.CLOSED
    since_ms: int = 0
    reason: str = ""
    pause_ms: int = 0
    override: Override = Override()
    ramp_halvings: int = 0

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "BreakerRecord":
        """Read what `to_json` wrote, here or in another version. Raises ValueError if it is no record."""
        try:
            fields: Mapping[str, Any] = json.loads(text)
            override = fields["override"]
            return BreakerRecord(
                int(fields["epoch"]),
                State(fields["state"]),
                int(fields["since_ms"]),
                str(fields["reason"]),
                int(fields["pause_ms"]),
                Override(Mode(override["mode"]), override["actor"], override["reason"], override["expires_at_ms"]),
                int(fields.get("ramp_halvings", 0)),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no breaker record: {error}") from error

    @property
    def issuance(self) -> Issuance:
        """The state in the public's words, unless it is in shadow."""
        match self.state:
            case State.CLOSED:
                return Issuance.ISSUING
            case State.OPEN:
                return Issuance.PAUSED
            case State.HALF_OPEN:
                return Issuance.RECOVERING
            case _:
                assert_never(self.state)

    def is_at_rest(self, now_ms: int, policy: BreakerPolicy) -> bool:
        """Tell whether nothing is lost with the record: it is closed, nobody overrides it, no trip is remembered."""
        closed = self.state is State.CLOSED and self.override.mode is Mode.AUTO
        return closed and now_ms - self.since_ms >= policy.trip_memory_ms


NEVER_CHANGED: Final = BreakerRecord()


def advance(
    record: BreakerRecord, verdict: Verdict, now_ms: int, policy: BreakerPolicy, draw: float = 0.0
) -> BreakerRecord:
    """Return the next record, of the next epoch; the very same one if nothing changes. One step at a time.

    `draw`, from 0 up to 1, is the jitter of a pause that begins here.
    """
    expires_at_ms = record.override.expires_at_ms
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        return replace(record, epoch=record.epoch + 1, override=Override())
    if not record.override.mode.follows_signals:
        return record
    elapsed_ms = now_ms - record.since_ms
    well = verdict.is_well_for(policy.well_before_reopening_ms, now_ms)
    match record.state:
        case State.CLOSED if verdict.sick:
            recent = record.pause_ms > 0 and elapsed_ms < policy.trip_memory_ms
            pause_ms = _pause_ms(record, recent, policy, draw)
            return _moved(record, State.OPEN, verdict.sick, now_ms, pause_ms, record.ramp_halvings if recent else 0)
        case State.OPEN if well and elapsed_ms >= record.pause_ms:
            return _moved(record, State.HALF_OPEN, PAUSE_OVER, now_ms, record.pause_ms, record.ramp_halvings)
        case State.HALF_OPEN if verdict.sick:
            pause_ms = _pause_ms(record, True, policy, draw)
            halvings = min(record.ramp_halvings + 1, policy.maximum_ramp_halvings)
            return _moved(record, State.OPEN, verdict.sick, now_ms, pause_ms, halvings)
        case State.HALF_OPEN if well and elapsed_ms >= ramp_of(record, policy).length_ms:
            return _moved(record, State.CLOSED, RAMP_OVER, now_ms, record.pause_ms, record.ramp_halvings)
        case _:
            return record


def overridden(record: BreakerRecord, override: Override, now_ms: int, policy: BreakerPolicy) -> BreakerRecord:
    """Return the record after the operator's word. Back to the signals, what was forced open reopens by the ramp."""
    match override.mode:
        case Mode.AUTO:
            # To be automatic is to have nothing that could expire.
            state, override = record.state, replace(override, expires_at_ms=None)
        case Mode.SHADOW:
            state = record.state
        case Mode.FORCED_OPEN:
            state = State.OPEN
        case Mode.FORCED_CLOSED:
            state = State.CLOSED
        case _:
            assert_never(override.mode)
    if state is record.state:
        return replace(record, epoch=record.epoch + 1, override=override)
    pause_ms = policy.minimum_pause_ms if state is State.OPEN else record.pause_ms
    return replace(_moved(record, state, OPERATOR, now_ms, pause_ms, 0), override=override)


def ramp_of(record: BreakerRecord, policy: BreakerPolicy) -> Ramp:
    """Return the present or next ramp: halved, it starts at half the share and takes twice as long."""
    start_permille = max(1, policy.ramp_start_permille >> record.ramp_halvings)
    return Ramp(start_permille, policy.ramp_ms << record.ramp_halvings)


def share_permille(record: BreakerRecord, now_ms: int, policy: BreakerPolicy) -> int:
    """Return how many in a thousand users may pass as it was decided: all, none, or the ramp's value."""
    match record.state:
        case State.CLOSED:
            return ALL
        case State.OPEN:
            return 0
        case State.HALF_OPEN:
            return ramp_of(record, policy).share_permille(now_ms - record.since_ms)
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


def _moved(
    record: BreakerRecord, state: State, reason: str, now_ms: int, pause_ms: int, ramp_halvings: int
) -> BreakerRecord:
    return BreakerRecord(record.epoch + 1, state, now_ms, reason, pause_ms, record.override, ramp_halvings)


def _pause_ms(record: BreakerRecord, again: bool, policy: BreakerPolicy, draw: float) -> int:
    longer_ms = 2 * record.pause_ms if again else 0
    pause_ms = min(max(longer_ms, policy.minimum_pause_ms), policy.maximum_pause_ms)
    jitter_ms = round(draw * pause_ms * policy.pause_jitter_permille / ALL)
    if pause_ms + jitter_ms <= policy.maximum_pause_ms:
        return pause_ms + jitter_ms
    return max(pause_ms - jitter_ms, policy.minimum_pause_ms)
