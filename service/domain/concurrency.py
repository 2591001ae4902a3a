"""Why: how many requests at once are too many depends on the machine, so a process learns it from its own times.

The limit follows the gradient of round-trip times, as in Netflix's concurrency-limits (Gradient2Limit,
https://github.com/Netflix/concurrency-limits, explained in its README), computed once a sample instead of a request:

    gradient  = max(0.5, min(1, long-term time / present time))
    limit     = (1 - smoothing) limit + smoothing (gradient limit + room to grow)

While times are as usual the limit grows by the room; when they rise it shrinks, by half a step at most.
"""

import math
from dataclasses import dataclass
from typing import Final

SMOOTHING: Final = 0.2
LONG_TERM_SAMPLES: Final = 600
RECOVERY: Final = 0.9
LEAST_LIMIT: Final = 4096.0
"""One full line may wait: it is bounded by itself, and refusing what does not fit costs less than a pause."""
MOST_LIMIT: Final = 65_536.0


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """How many requests may be in flight, and how long one takes in the long run; 0 while nobody knows."""

    limit: float = LEAST_LIMIT
    long_term_s: float = 0.0

    def after(self, round_trip_s: float, in_flight: int) -> "ConcurrencyLimit":
        """Return the limit after one more sample: the mean time of its requests, and how many were in flight."""
        long_term_s = self._long_term_s(round_trip_s)
        if in_flight < self.limit / 2:
            # So few say nothing about how many would be too many.
            return ConcurrencyLimit(self.limit, long_term_s)
        gradient = max(0.5, min(1.0, long_term_s / round_trip_s))
        wanted = self.limit * gradient + math.sqrt(self.limit)
        limit = (1 - SMOOTHING) * self.limit + SMOOTHING * wanted
        return ConcurrencyLimit(min(max(limit, LEAST_LIMIT), MOST_LIMIT), long_term_s)

    def _long_term_s(self, round_trip_s: float) -> float:
        if not self.long_term_s:
            return round_trip_s
        long_term_s = self.long_term_s + (round_trip_s - self.long_term_s) * 2 / (LONG_TERM_SAMPLES + 1)
        # After a long overload the memory of it is forgotten faster than it was made.
        return long_term_s * RECOVERY if long_term_s > 2 * round_trip_s else long_term_s
