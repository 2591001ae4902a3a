"""Act: everybody who was sent away comes back when told to, and issuance reopens without meeting a herd."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from loadtest.bench.campaigns import open_campaign
from loadtest.bench.figures import TIMES, Bound
from loadtest.overload.answers import Answer, Task
from loadtest.overload.findings import Finding
from loadtest.overload.site import Site
from loadtest.overload.stream import coming, visit
from loadtest.overload.watch import watching
from service.domain.breaker import BreakerPolicy, Mode
from service.domain.ramp import ALL

CAMPAIGN: Final = "overload-reopening"
PAUSE_S: Final = 10
GATHERING_S: Final = 8
BEFORE_S: Final = 3
"""A process tells those whom it sends away when to come by what it has served of late, so people are served before."""
WINDOW_S: Final = 5
SPARE_S: Final = 10.0
POLICY: Final = BreakerPolicy()
"""What the processes run by."""


def rehearse(site: Site, waiters: int) -> Iterator[Finding]:
    """Pause for a while, send everybody away, and count who comes back when."""
    open_campaign(site.remote, CAMPAIGN)
    ramp_s = POLICY.ramp_ms / 1000
    leave_after_s = PAUSE_S + 2 * ramp_s + SPARE_S
    full_rate = ramp_full_rate(waiters)
    before = round(full_rate * BEFORE_S)
    visit(
        Task("issue", CAMPAIGN, site.ports, before, full_rate, BEFORE_S + SPARE_S, 256, site.new_users(before)),
        site.cores.load,
    )
    first = site.new_users(waiters)
    task = Task("issue", CAMPAIGN, site.ports, waiters, waiters / GATHERING_S, leave_after_s, 256, first, patient=True)
    with watching(site) as watch:
        site.override(Mode.FORCED_OPEN, PAUSE_S)
        began_s = time.monotonic()
        with coming(task, site.cores.load) as stream:
            answers = stream.answers(leave_after_s + SPARE_S)
        reopened_ms = watch.first_ms("recovering", began_s)
        pauses = watch.most_pauses(began_s)
    served = sum(answer.granted for answer in answers)
    how = f"{served:,} of {waiters:,} served in {answers[-1].answered_s - began_s:.0f} s, {len(answers):,} requests"
    fullest = None if reopened_ms is None else fullest_ratio(answers, waiters, began_s + reopened_ms / 1000)
    promise = f"Arrivals after reopening: the fullest {WINDOW_S} s, of the ramp's full rate"
    yield Finding(promise, Bound(1.1, TIMES), fullest, how)
    yield Finding("Reopening: further pauses", Bound(0, "pauses"), pauses - 1, how)
    yield Finding("Reopening: waiters served", Bound(100, "%", True), 100 * served / waiters, how)
    site.reopen()


def ramp_full_rate(waiters: int) -> float:
    """How many a second the ramp lets in when it is full, if it lets so many in from its beginning to its end."""
    start = POLICY.ramp_start_permille / ALL
    return waiters / (POLICY.ramp_ms / 1000 * (1 + start) / 2)


def fullest_ratio(answers: Sequence[Answer], waiters: int, reopened_s: float) -> float:
    """How many came in the fullest window since then, of those that the ramp lets in in as long when it is full."""
    since = (answer.asked_s - reopened_s for answer in answers)
    windows = Counter(int(after_s // WINDOW_S) for after_s in since if after_s >= 0)
    return max(windows.values(), default=0) / WINDOW_S / ramp_full_rate(waiters)
