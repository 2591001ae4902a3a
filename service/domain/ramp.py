"""Why: whoever was sent away comes back, and all at once would be the next stampede.

A ramp grows from a small share to all. It has two readings that agree: the share of the users who may pass, always
the same users first; and the rate at which requests may come. So each caller can be told a time at which he is due.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

ALL: Final = 1000
GOLDEN_RATIO: Final = (math.sqrt(5) - 1) / 2
CURVE_POINTS: Final = 1024
FILLED: Final = 0.9
"""How much of what the ramp can take is invited: callers are not as punctual as the curve."""
BLOCK_MS: Final = 10_000
"""The line behind the ramp comes block by block, each evenly: who was refused together does not return together."""
WHOLE_SECOND_MS: Final = 1_000
"""Callers are told whole seconds, so the last of the ramp may come so much after its end."""
LONGEST_TAIL_MS: Final = 300_000
"""How long after the ramp's end the last of a long line is sent back at most."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """A share that grows evenly from `start_permille` to ALL within `length_ms`."""

    start_permille: int
    length_ms: int

    def share_permille(self, elapsed_ms: int) -> int:
        """Return how many in a thousand users may pass at that time."""
        elapsed_ms = min(max(elapsed_ms, 0), self.length_ms)
        return self.start_permille + (ALL - self.start_permille) * elapsed_ms // self.length_ms

    def reaches_user_after_ms(self, place: int) -> int:
        """Return how far into the ramp the share passes `place`, 0 to 999, so that a user of that place may pass."""
        beyond_start = max(0, place + 1 - self.start_permille)
        return -(-beyond_start * self.length_ms // (ALL - self.start_permille))

    def reaches_turn_after_ms(self, turn: int, per_second: float) -> int:
        """Return when so many have had room before: the time that a numbered place in a line has on the ramp.

        `per_second` is the rate at the ramp's end, and goes on after it.
        """
        full_s, start = turn / per_second, self.start_permille / ALL
        length_s = self.length_ms / 1000
        on_ramp_s = length_s * (1 + start) / 2
        if full_s >= on_ramp_s:
            return math.ceil(1000 * (length_s + full_s - on_ramp_s))
        slope = (1 - start) / length_s
        return math.ceil(1000 * (math.sqrt(start**2 + 2 * slope * full_s) - start) / slope)

    def invites_stranger_after_ms(self, draw: float) -> int:
        """Return how far into the ramp a caller whose user is unknown should come who drew `draw`, 0 up to 1.

        Uniform draws make arrivals in proportion to the share open at that time: the strangers themselves, and those
        of them whose user's place is not reached yet, who come a second time when it is.
        """
        return _invitations(self)[int(draw * CURVE_POINTS)]

    def strangers(self, per_second: float) -> int:
        """Return how many strangers the ramp can invite so that no moment sees more than its share of the rate."""
        return int(FILLED * per_second * self.length_ms / 1000 / math.exp(1 - self.start_permille / ALL))


class StrangersPlaces:
    """The places of strangers on one ramp that ends at a rate of `per_second`, and behind it in a line."""

    def __init__(self, ramp: Ramp, per_second: float) -> None:
        self.ramp = ramp
        self.per_second = per_second
        self._on_ramp = ramp.strangers(per_second)
        self._in_a_block = FILLED * per_second * BLOCK_MS / 1000
        self._invitations = _invitations(ramp)

    def after_ms(self, number: int) -> int:
        """Return when the `number`-th stranger, from 0 on, should come."""
        # Multiples of the golden ratio are spread evenly however many there are, as random numbers are not.
        draw = number * GOLDEN_RATIO % 1
        behind = number - self._on_ramp
        if behind < 0:
            return self._invitations[int(draw * CURVE_POINTS)]
        begins_ms = BLOCK_MS * int(behind / self._in_a_block)
        tail_ms = begins_ms + draw * BLOCK_MS if begins_ms < LONGEST_TAIL_MS else draw * LONGEST_TAIL_MS
        return self.ramp.length_ms + WHOLE_SECOND_MS + round(tail_ms)


@lru_cache(maxsize=16)
def _invitations(ramp: Ramp) -> list[int]:
    """When each of CURVE_POINTS evenly spread draws is due.

    With x as the part of the ramp that is over, s(x) the share and F the part of the strangers who have come, the
    rate of arrivals is f(x) + (1 - start) F(x): a stranger who came at t and is not let in, with probability
    1 - s(t), is told a time evenly spread over the rest. That is proportional to s(x) where
    F(x) = e^(1 - start) (x - 1 + e^-(1 - start)x).
    """
    beyond = 1 - ramp.start_permille / ALL

    def come(x: float) -> float:
        return math.exp(beyond) * (x - 1 + math.exp(-beyond * x))

    grid = [come(step / (4 * CURVE_POINTS)) for step in range(4 * CURVE_POINTS + 1)]
    draws = ((point + 0.5) / CURVE_POINTS for point in range(CURVE_POINTS))
    return [round(ramp.length_ms * bisect_left(grid, draw) / (4 * CURVE_POINTS)) for draw in draws]
