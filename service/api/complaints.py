"""What the store says went wrong, for the log: callers are not told, and a metric only counts it."""

import time
from collections.abc import Callable
from contextvars import Context
from typing import Final

import structlog

from service.gate.signals import BatchReport

EVERY_S: Final = 1.0
"""Of each verb so much time passes between two lines: in a stampede every batch fails, and all in the same words."""
LONGEST_ERROR: Final = 100
ARGUMENTS: Final = ", with args beginning with"
"""Behind this Valkey repeats what a command that it does not know was to do, and for whom."""

log = structlog.get_logger()


class Complaints:
    """Logs why the store refused batches. `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due_s: dict[str, float] = {}

    def observe(self, report: BatchReport) -> None:
        """Log it if the store itself refused the batch, and the last line is not too fresh."""
        if report.failure != "error":
            return
        now_s = self._clock()
        if now_s >= self._due_s.get(report.verb, now_s):
            self._due_s[report.verb] = now_s + EVERY_S
            facts = {"verb": report.verb, "campaign": report.campaign_id, "error": words_of(report.error)}
            # A batch is nobody's request, though its task may have begun under the id of one.
            Context().run(log.warning, "the store refused a batch", **facts)


def words_of(error: str) -> str:
    """The store's words, without what they repeat of a command, and not too many."""
    return error.partition(ARGUMENTS)[0][:LONGEST_ERROR]
