"""Act: what a refusal costs while issuance is paused: no call of the store, and next to no time."""

import time
from collections.abc import Iterator
from typing import Final

from loadtest.bench.campaigns import open_campaign
from loadtest.bench.figures import Bound
from loadtest.overload.answers import Task
from loadtest.overload.findings import Finding, p99_ms
from loadtest.overload.site import Site
from loadtest.overload.stream import visit
from service.domain.breaker import Mode
from service.gate.breaker import POLL_INTERVAL_S

CAMPAIGN: Final = "overload-refusal"
PER_SECOND: Final = 500
SPARE_S: Final = 2.0


def rehearse(site: Site, seconds: int) -> Iterator[Finding]:
    """Pause, and ask for coupons below saturation."""
    open_campaign(site.remote, CAMPAIGN)
    site.override(Mode.FORCED_OPEN)
    people = PER_SECOND * seconds
    task = Task("issue", CAMPAIGN, site.ports[:1], people, PER_SECOND, seconds + SPARE_S, first=site.new_users(people))
    began_s, before = time.monotonic(), site.store.now.script_calls()
    answers = visit(task, site.cores.load)
    calls, lasted_s = site.store.now.script_calls() - before, time.monotonic() - began_s
    site.reopen()
    pulses = len(site.issuing) * (lasted_s / POLL_INTERVAL_S + 2)
    refused = sum(answer.paused for answer in answers)
    how = f"{refused:,} of {len(answers):,} refused; {calls:,} calls, of which at most {pulses:.0f} are the breaker's"
    yield Finding("A refusal while paused: store calls", Bound(0, "calls"), max(0, calls - pulses), how)
    paused = refused == len(answers)
    how = f"{PER_SECOND}/s at one process"
    yield Finding("A refusal while paused: p99", Bound(2, "ms"), p99_ms(answers) if paused else None, how)
