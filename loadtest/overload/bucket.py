"""Act: a campaign's bucket under twenty times its rate, offered to several processes at once."""

from collections.abc import Iterator, Sequence
from typing import Final

from loadtest.bench.campaigns import open_campaign
from loadtest.bench.figures import Bound
from loadtest.overload.answers import Answer, Task
from loadtest.overload.findings import Finding
from loadtest.overload.site import Site
from loadtest.overload.stream import visit

CAMPAIGN: Final = "overload-bucket"
PER_SECOND: Final = 100
BURST: Final = 50
TIMES: Final = 20
SPARE_S: Final = 5.0
CLOCK_S: Final = 0.001
"""The store counts whole milliseconds, so two of its looks may be that much further apart than they were."""


def rehearse(site: Site, seconds: int) -> Iterator[Finding]:
    """Offer that much for that long, and count what is let through."""
    open_campaign(site.remote, CAMPAIGN, issue_rate={"per_second": PER_SECOND, "burst": BURST})
    people = PER_SECOND * TIMES * seconds
    task = Task(
        "issue", CAMPAIGN, site.ports, people, PER_SECOND * TIMES, seconds + SPARE_S, first=site.new_users(people)
    )
    answers = visit(task, site.cores.load)
    how = f"{len(answers):,} asked {len(site.ports)} processes in {seconds} s for {PER_SECOND}/s and {BURST}"
    yield Finding(f"Bucket at {TIMES} times its rate: error of admission", Bound(0.5, "%"), error_percent(answers), how)
    yield Finding("Bucket: most above burst and rate at any moment", Bound(0, "coupons"), most_above(answers), how)


def error_percent(answers: Sequence[Answer]) -> float:
    """How far what was let through is from what the bucket holds and gains in that time."""
    gained = BURST + PER_SECOND * (answers[-1].asked_s - answers[0].asked_s)
    return 100 * abs(sum(answer.granted for answer in answers) - gained) / gained


def most_above(answers: Sequence[Answer]) -> float:
    """By how many coupons more were out at some moment than burst and rate allow; none if never."""
    granted = sorted(answer.answered_s for answer in answers if answer.granted)
    began_s = min(answer.asked_s for answer in answers)
    above = (number - BURST - PER_SECOND * (at_s - began_s + CLOCK_S) for number, at_s in enumerate(granted, start=1))
    return max(0.0, max(above, default=0.0))
