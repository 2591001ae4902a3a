"""Why: what a rehearsal leaves behind is the director's to gather and the verdict's to weigh."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from loadtest.messages import Answer


@dataclass(frozen=True, slots=True)
class Promise:
    """What the campaign may give out at most; money in minor units."""

    max_coupons: int
    max_coupons_per_user: int
    budget: int
    coupon_amount: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Between which moments, in seconds after the beginning, the service had confirmed that issuance was paused."""

    confirmed_s: float
    lifted_s: float


class Stand(NamedTuple):
    """What the public was told of the campaign's issuance, first seen at that second, and why."""

    at_s: float
    issuance: str
    reason: str


@dataclass(frozen=True, slots=True)
class Extension:
    """How the extension to `expires_at` went; `first_looks` are the expiries that coupons showed after the 202."""

    id: str
    accepted_s: float
    expires_at: str
    first_looks: tuple[str, ...]
    status: str
    total: int
    changed: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the verdict rests on. `left` counts the errands that the deadline cut off."""

    demanded: int
    left: int
    answers: Sequence[Answer]
    promise: Promise
    counters: Mapping[str, int]
    conservation_errors: Sequence[int]
    conservation_metric: float | None
    issuance: Sequence[Stand]
    pause: Pause
    extension: Extension
