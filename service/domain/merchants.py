"""A merchant who cannot keep up says so himself, and is left in peace for as long as he asks."""

from dataclasses import dataclass
from typing import Final

from service.domain.validity import DAY_MS

MAX_BUSY_MS: Final = DAY_MS
"""The longest that one word of a merchant's holds; he can repeat it."""
MAX_BUSY_MERCHANTS: Final = 10_000
"""How many merchants of one campaign can be busy at once."""


@dataclass(frozen=True, slots=True)
class Busy:
    """A merchant takes none of one campaign's coupons until `until_ms`; `reason` is why, in his words."""

    campaign_id: str
    until_ms: int
    reason: str
