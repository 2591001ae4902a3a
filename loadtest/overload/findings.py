"""Why: a rehearsal is worth its verdict: what was promised, what was seen of it, and whether that keeps the bound."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from loadtest.bench.figures import Bound
from loadtest.overload.answers import Answer


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise with its bound; `value` is None where it could not be seen, and `how` says how, or why not."""

    promise: str
    bound: Bound
    value: float | None
    how: str

    @property
    def kept(self) -> bool:
        """Whether it was seen to be kept."""
        return self.value is not None and self.bound.holds(self.value)


def p99_ms(answers: Iterable[Answer]) -> float | None:
    """The time within which 99 of 100 were answered, in milliseconds; None of nobody."""
    times = sorted(answer.seconds * 1000 for answer in answers)
    return times[ceil(len(times) * 0.99) - 1] if times else None


def granted_percent(answers: Sequence[Answer]) -> float | None:
    """How many of a hundred got what they asked for; None of nobody."""
    return 100 * sum(answer.granted for answer in answers) / len(answers) if answers else None


def ratio(value: float | None, baseline: float | None) -> float | None:
    """How many times the baseline it is."""
    return None if value is None or not baseline else value / baseline
