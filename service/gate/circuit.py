"""Why: the whole and each campaign are guarded alike: by what this replica feels, and by what most of them agree on.

The pure machine of `service.domain.breaker` runs twice: on the record all replicas share, and on this replica's own.
Its own sheds when it alone is sick, and is its vote in the quorum that moves the shared one.
"""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Final, NamedTuple

from service.domain.breaker import (
    NEVER_CHANGED,
    BreakerPolicy,
    BreakerRecord,
    Mode,
    State,
    advance,
    ramp_begins_in_ms,
    ramp_of,
    share_permille,
)
from service.domain.ramp import ALL, StrangersPlaces
from service.domain.saturation import Sample, Signal, Verdict, Watch, evaluate, judge, quorum

LEAST_PER_SECOND: Final = 100.0
"""What a replica is taken to serve that has not served anybody of late."""


class Times(NamedTuple):
    """One moment by both clocks: the store's, by which the shared record counts, and this replica's own."""

    shared_ms: int
    own_ms: int


class Returns:
    """How those come back who are refused at one moment: what is the same for all of them is worked out once.

    `strangers` numbers those who are sent away unheard, over the whole pause.
    """

    __slots__ = ("_begins_in_ms", "_places", "_strangers")

    def __init__(self, begins_in_ms: int, places: StrangersPlaces, strangers: Iterator[int]) -> None:
        self._begins_in_ms = begins_in_ms
        self._places = places
        self._strangers = strangers

    def user_in_ms(self, place: int) -> int:
        """Return when the ramp reaches a user of that place."""
        return self._begins_in_ms + self._places.ramp.reaches_user_after_ms(place)

    def stranger_in_ms(self) -> int:
        """Return when the next caller who is sent away unheard should come, each at a place of his own."""
        return self._begins_in_ms + self._places.after_ms(next(self._strangers))


class Circuit:
    """One breaker as this replica sees it. Nothing here waits or asks; the caller brings samples, votes and records."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._watch = Watch()
        self._own_verdict = Verdict()
        self._verdict = Verdict()
        self._strangers = count()
        self._placed_by = NEVER_CHANGED
        self._places = StrangersPlaces(ramp_of(NEVER_CHANGED, policy), LEAST_PER_SECOND)
        self._joined_epoch = 0
        self._reached_by = NEVER_CHANGED
        self._reached_permille = ALL
        self.outvoted = True
        self.record = NEVER_CHANGED
        self.own_record = NEVER_CHANGED
        self.sample: Sample = {}

    @property
    def mode(self) -> Mode:
        """Who decides."""
        return self.record.override.mode

    @property
    def vote(self) -> str:
        """Why this replica wants a pause, or nothing.

        Not the signals of this moment: a replica that sheds is soon well, and must still count while others sicken.
        But a pause of its own that all have joined is dealt with, and must not prolong theirs.
        """
        if self.own_record.state is State.OPEN and self.own_record.epoch != self._joined_epoch:
            return self.own_record.reason
        return self._watch.tripped[0] if self._watch.tripped else ""

    @property
    def sheds_alone(self) -> bool:
        """Whether this replica pauses for a reason that the others do not share, or it cannot ask them.

        As long as all pause together nobody is alone, nor is whoever is well again and only comes back more slowly.
        """
        pauses_alone = self.own_record.state is State.OPEN and self.record.state is not State.OPEN
        return pauses_alone and self.outvoted and bool(self.vote)

    @property
    def runs_late(self) -> bool:
        """Whether the event loop has been late for as many samples as trip the breaker, but for the last of them."""
        return self._watch.streaks.get(Signal.EVENT_LOOP_LAG, 0) >= max(1, self._policy.samples_to_trip - 1)

    def feel(self, sample: Sample, own_ms: int, draw: float) -> BreakerRecord:
        """Take one more sample, and return this replica's own record as it was before it."""
        self.sample = sample
        self._watch = evaluate(sample, self._watch, self._policy, self._policy.samples_to_trip)
        self._own_verdict = judge(self._own_verdict, self._watch.tripped[0] if self._watch.tripped else "", own_ms)
        before, self.own_record = (
            self.own_record,
            advance(self.own_record, self._own_verdict, own_ms, self._policy, draw),
        )
        self._note_pause(before, self.own_record)
        self._note_joined()
        return before

    def confer(self, votes: Iterable[str], sick: str, now_ms: int, draw: float) -> BreakerRecord:
        """Return the record that should be in force after these votes; the one that is, if nothing changes.

        `sick` is a reason that needs no votes, since every replica sees the same.
        """
        agreed = quorum(votes)
        self.outvoted = not agreed
        self._verdict = judge(self._verdict, agreed or sick, now_ms)
        return advance(self.record, self._verdict, now_ms, self._policy, draw)

    def adopt(self, record: BreakerRecord) -> None:
        """Take over the record in force."""
        before, self.record = self.record, record
        self._note_pause(before, record)
        self._note_joined()

    def decided_share(self, times: Times) -> int:
        """Return how many in a thousand users may pass by what was decided; in shadow they all do.

        As long as one record rules it never falls: an answer that was under way for long sets the store's time back as
        this replica knows it, and whoever has passed on a ramp may pass until its end.
        """
        record, now_ms = self.ruling(times)
        share = share_permille(record, now_ms, self._policy)
        self._reached_permille = max(share, self._reached_permille) if self._reached_by is record else share
        self._reached_by = record
        return self._reached_permille

    def ruling(self, times: Times) -> tuple[BreakerRecord, int]:
        """Return the record that decides here, and the time by which it counts: the operator's, else the stricter."""
        if self.own_record.state is State.CLOSED:
            return self.record, times.shared_ms
        own_share = share_permille(self.own_record, times.own_ms, self._policy)
        shared_share = share_permille(self.record, times.shared_ms, self._policy)
        if self.mode.follows_signals and own_share < shared_share:
            return self.own_record, times.own_ms
        return self.record, times.shared_ms

    def returns(self, per_second: float, times: Times) -> Returns:
        """Return how those come back who are refused now, to a replica that serves `per_second`."""
        record, now_ms = self.ruling(times)
        begins_in_ms = ramp_begins_in_ms(record, now_ms, self._policy)
        return Returns(begins_in_ms, self._places_on(record, per_second), self._strangers)

    def turn_due_in_ms(self, turn: int, per_second: float, times: Times) -> int:
        """Return when a line served at `per_second` by a ramp that is over comes to that turn, from 0 on."""
        record, now_ms = self.ruling(times)
        if share_permille(record, now_ms, self._policy) == ALL:
            return round(1000 * turn / per_second)
        begins_in_ms = ramp_begins_in_ms(record, now_ms, self._policy)
        return max(0, begins_in_ms + ramp_of(record, self._policy).reaches_turn_after_ms(turn, per_second))

    def stranger_due_in_ms(self, draw: float, times: Times) -> int:
        """Return when somebody of whom nothing is known may try, who drew `draw`, without giving him a place."""
        record, now_ms = self.ruling(times)
        begins_in_ms, ramp = ramp_begins_in_ms(record, now_ms, self._policy), ramp_of(record, self._policy)
        if record.state is State.OPEN:
            return begins_in_ms + ramp.invites_stranger_after_ms(draw)
        return round(draw * max(0, begins_in_ms + ramp.length_ms))

    def is_idle(self, times: Times) -> bool:
        """Tell whether nothing is lost with this circuit."""
        if self._watch.streaks or self._watch.tripped:
            return False
        own_rests = not self.own_record.epoch or self.own_record.is_at_rest(times.own_ms, self._policy)
        return own_rests and (not self.record.epoch or self.record.is_at_rest(times.shared_ms, self._policy))

    def _places_on(self, record: BreakerRecord, per_second: float) -> StrangersPlaces:
        # A stampede that is refused asks a thousand times for the places on one ramp.
        if self._placed_by is not record or self._places.per_second != max(per_second, LEAST_PER_SECOND):
            self._placed_by = record
            self._places = StrangersPlaces(ramp_of(record, self._policy), max(per_second, LEAST_PER_SECOND))
        return self._places

    def _note_pause(self, before: BreakerRecord, after: BreakerRecord) -> None:
        if after.state is State.OPEN and before.state is not State.OPEN:
            self._strangers = count()

    def _note_joined(self) -> None:
        if self.record.state is State.OPEN:
            self._joined_epoch = self.own_record.epoch
