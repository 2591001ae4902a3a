"""Why: a redemption waits behind the batches of issue in the store, so these must not hold it for long.

What is long depends on the machine: where a call by itself waits 5 ms for the disk, another 2 ms hardly show, and small
batches would only waste the disk's time; where it takes 1 ms, they would be most of what the redemption waits for.
"""

import time
from collections.abc import Callable
from typing import Final

MAX_HELD_S: Final = 0.002
"""Two calls may be under way for a shard, so they never hold the store for more than 4 ms together."""
SHARE_OF_LONE_CALL: Final = 1 / 3
"""While somebody redeems: two calls together add at most two thirds of what a redemption takes by itself."""
REDEEMED_LATELY_S: Final = 1.0
"""For so long after a redemption the next one is expected."""
LONE_CALL_S: Final = 0.001
"""What a lone call is taken to last until one was seen."""
LONE_SIZE: Final = 4
"""A call of so few requests lasts as long as one of a single request."""
FORGOTTEN: Final = 1.05
"""With every lone call the quickest of them counts for so much less, so that a slower disk is noticed."""
LEAST: Final = 16
"""A script call by itself takes as long as about ten of its requests: smaller batches would be mostly that."""
STEP: Final = 0.25
"""How much of the way to the size that would have fitted is taken after a batch."""
CLOCK_S: Final = 1e-6
"""No shorter time can be told from none."""


class BatchSize:
    """How many requests may leave together: at most `most`, and no more than what the calls of late allow.

    `redeems_elsewhere`: other processes redeem from the same store, of which nothing is seen here.
    """

    def __init__(self, most: int, redeems_elsewhere: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._least = min(LEAST, most)
        self._most = most
        self._size = float(most)
        self._lone_call_s = LONE_CALL_S
        self._redeems_elsewhere = redeems_elsewhere
        self._clock = clock
        self._redeemed_s = float("-inf")

    @property
    def limit(self) -> int:
        """How many the next batch may have."""
        return round(self._size)

    def note_redemption(self) -> None:
        """Somebody redeems here."""
        self._redeemed_s = self._clock()

    def learn_lone_call(self, size: int, call_s: float) -> None:
        """Note how long a call lasted that was alone on its way."""
        if size <= LONE_SIZE:
            self._lone_call_s = min(self._lone_call_s * FORGOTTEN, call_s)

    def learn_held(self, size: int, held_s: float) -> None:
        """Note for how long a batch held the store."""
        fitting = min(max(size * self._allowed_s() / max(held_s, CLOCK_S), self._least), self._most)
        # A small batch says little about large ones: a part of its time is the call's own.
        if fitting < size or size >= self.limit:
            self._size += STEP * (fitting - self._size)

    def _allowed_s(self) -> float:
        if self._redeems_elsewhere or self._clock() - self._redeemed_s < REDEEMED_LATELY_S:
            return min(MAX_HELD_S, self._lone_call_s * SHARE_OF_LONE_CALL)
        return MAX_HELD_S
