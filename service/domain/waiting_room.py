"""Why: whoever waits through a pause keeps his place, and the line is called at the ramp's pace, never as a herd.

A line is one row of numbers. The store hands them out and calls them, in order, at the campaign's rate times the
ramp's share; what a call that nobody answered frees goes to those behind. Here stands what a number means.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Final, TypeAlias

from service.domain.ramp import ALL, Ramp

GRACE_MS: Final = 30_000
"""How long a place stays its holder's after it was called; then it is given on."""
COUNTING_MS: Final = 1_000
"""How much longer a call is still counted: by then every process has told who came at the last moment."""
NEAR_MS: Final = 4_000
MAX_WAITING: Final = 10**7
"""How many numbers of one campaign may wait to be called."""
TICKET: Final = 1_000_000
"""Micro-tickets, in which the pace is counted: a rate in thousandths a second is so many of them a millisecond."""


@dataclass(frozen=True, slots=True)
class Call:
    """The numbers from `first` on, up to the next call's, were called at that instant."""

    at_ms: int
    first: int


@dataclass(frozen=True, slots=True)
class Line:
    """A campaign's line as the store knew it at `now_ms`.

    `called` is the first number not called yet, `calls` are those still in their grace, or just past it.
    `opened_at_ms` is None while nobody is let in; `paused` is the operator's word, the breaker's stands elsewhere.
    Before `starts_at_ms`, which is 0 for a campaign without an issue window, nobody is let in at all.
    """

    now_ms: int
    opened_at_ms: int | None
    paused: bool
    per_second_milli: int
    next_number: int
    called: int
    calls: tuple[Call, ...]
    starts_at_ms: int = 0

    @property
    def waiting(self) -> int:
        """How many numbers wait to be called."""
        return self.next_number - self.called

    @property
    def is_over(self) -> bool:
        """Whether nobody waits, and no call may still be answered."""
        return not self.waiting and not self.calls


@dataclass(frozen=True, slots=True)
class InLine:
    """The number has not been called; the first in line has position 1."""

    position: int


@dataclass(frozen=True, slots=True)
class Called:
    """The number may pass until then; `call` is the first number of its call."""

    until_ms: int
    call: int


@dataclass(frozen=True, slots=True)
class GivenOn:
    """The number was called, and its time is over."""


Standing: TypeAlias = InLine | Called | GivenOn


def standing(line: Line, number: int, now_ms: int) -> Standing:
    """Where a number stands at that instant of the store's time, by what the line was when it was last seen."""
    if number >= line.called:
        return InLine(number - line.called + 1)
    at = bisect_right(line.calls, number, key=lambda call: call.first) - 1
    if at < 0 or line.calls[at].at_ms + GRACE_MS <= now_ms:
        return GivenOn()
    return Called(line.calls[at].at_ms + GRACE_MS, line.calls[at].first)


def served_in_ms(line: Line, position: int, now_ms: int, ramp: Ramp) -> int:
    """How long the position must wait once the line moves: now, or if nobody is let in yet, from its opening on."""
    elapsed_ms = 0 if line.opened_at_ms is None else max(0, now_ms - line.opened_at_ms)
    pace = line.per_second_milli / (ALL * TICKET)
    return max(0, math.ceil(_ramp_reaches(_ramp_area(elapsed_ms, ramp) + position / pace, ramp)) - elapsed_ms)


def ask_again_in_ms(begins_in_ms: int, served_in_ms: int) -> int:
    """When the holder should ask where he stands: half the way, and all of it when that is near.

    The line may open sooner than anybody knows, so he never stays away for longer than his place would last.
    """
    due_in_ms = begins_in_ms + served_in_ms
    return due_in_ms if due_in_ms <= NEAR_MS else min(due_in_ms // 2, served_in_ms + GRACE_MS // 2)


def _ramp_area(elapsed_ms: float, ramp: Ramp) -> float:
    """What the ramp has let through so far, in milliseconds at a thousandth of the full rate."""
    rising_ms = min(elapsed_ms, ramp.length_ms)
    slope = (ALL - ramp.start_permille) / ramp.length_ms
    return ramp.start_permille * rising_ms + slope * rising_ms**2 / 2 + ALL * (elapsed_ms - rising_ms)


def _ramp_reaches(area: float, ramp: Ramp) -> float:
    """When the ramp will have let that much through: the inverse of `_ramp_area`."""
    whole = _ramp_area(ramp.length_ms, ramp)
    if area >= whole:
        return ramp.length_ms + (area - whole) / ALL
    start, slope = ramp.start_permille, (ALL - ramp.start_permille) / ramp.length_ms
    return (math.sqrt(start**2 + 2 * slope * area) - start) / slope
