"""Act: a stampede on issue, while merchants go on redeeming; and redemption while issuance is paused."""

from collections.abc import Iterator
from math import ceil
from pathlib import Path
from statistics import fmean
from typing import Final

from loadtest.bench import people
from loadtest.bench.campaigns import open_campaign
from loadtest.bench.figures import TIMES, Bound
from loadtest.bench.processes import IDLY
from loadtest.bench.scene import MOST_A_SECOND
from loadtest.overload.answers import Answer, Task
from loadtest.overload.findings import Finding, granted_percent, p99_ms, ratio
from loadtest.overload.site import Api, Site
from loadtest.overload.stream import coming, visit
from service.domain.breaker import Mode

ISSUING: Final = "overload-storm"
REDEEMING: Final = "overload-redeem"
PEAK_CONNECTIONS: Final = 64
PEAK_TIMES: Final = 10
TURNS: Final = (1, PEAK_TIMES, PEAK_TIMES, 1)
"""Times the peak's people, one run after the other: what grows or is learned meanwhile weighs on both alike."""
WARM_UP_S: Final = 2
"""A process that has just been started takes a lone call for longer than it is, and so makes larger batches."""
STORM_TIMES: Final = 12
STORMS: Final = 3
"""The 99th percentile of one storm is a dozen redemptions, and no two storms are alike."""
REDEEMED_A_SECOND: Final = 100
SPARE_S: Final = 5.0


class Tills:
    """Merchants who redeem at their own time, at one process or another; no code comes twice."""

    def __init__(self, site: Site, seconds: int) -> None:
        open_campaign(site.remote, REDEEMING)
        self._site = site
        self._seconds = seconds

    def task(self, api: Api) -> Task:
        """Redemptions at one process for the act's time."""
        number = REDEEMED_A_SECOND * self._seconds
        codes: Path = self._site.new_codes(REDEEMING, number)
        leave_after_s = self._seconds + SPARE_S
        return Task("redeem", str(codes), (api.port,), number, REDEEMED_A_SECOND, leave_after_s, connections=8)

    def quiet(self, api: Api) -> list[Answer]:
        """What they are told while nothing else happens."""
        return visit(self.task(api), self._site.cores.load)


def rehearse(site: Site, seconds: int) -> Iterator[Finding]:
    """Measure the peak and the quiet, then ten and twelve times as many people at once."""
    open_campaign(site.remote, ISSUING)
    tills = Tills(site, seconds)
    _stampede(site, PEAK_CONNECTIONS, WARM_UP_S)
    runs = [(times, _issued_a_second(site, PEAK_CONNECTIONS * times, ceil(seconds / 2))) for times in TURNS]
    peak, crowd = (fmean(issued for times, issued in runs if times == which) for which in (1, PEAK_TIMES))
    how = f"{crowd:,.0f}/s over {PEAK_CONNECTIONS * PEAK_TIMES} connections, {peak:,.0f}/s over {PEAK_CONNECTIONS}"
    yield Finding(
        "Issued at 10 times the load, of the peak", Bound(90, "%", True), 100 * (ratio(crowd, peak) or 0), how
    )
    rooms = ((site.redeeming, "in its own process", 2), (site.issuing[0], "sharing one", 5))
    quiet: dict[Api, list[Answer]] = {}
    for api, name, most in rooms:
        quiet[api], stormy = _by_turns(site, tills, api, seconds)
        yield from _redemption(f"in a storm, {name}", stormy, quiet[api], most)
    site.override(Mode.FORCED_OPEN)
    for api, name, most in rooms:
        yield from _redemption(f"while paused, {name}", tills.quiet(api), quiet[api], most)
    site.reopen()


def _by_turns(site: Site, tills: Tills, api: Api, seconds: int) -> tuple[list[Answer], list[Answer]]:
    """What the tills are told at one process in the quiet and in storms, one after the other, as the disk changes."""
    quiet, stormy = [], []
    for _ in range(STORMS):
        site.reopen()
        quiet += tills.quiet(api)
        with coming(tills.task(api), site.cores.load) as stream:
            _stampede(site, PEAK_CONNECTIONS * STORM_TIMES, seconds)
            stormy += stream.answers()
    return quiet, stormy


def _redemption(when: str, answers: list[Answer], quiet: list[Answer], most: float) -> Iterator[Finding]:
    p99, quiet_ms = p99_ms(answers), p99_ms(quiet)
    how = f"{len(answers):,} redemptions"
    yield Finding(f"Redeem {when}: granted", Bound(99.9, "%", True), granted_percent(answers), how)
    how = "nobody was answered" if p99 is None or quiet_ms is None else f"{p99:.1f} ms, quiet {quiet_ms:.1f} ms"
    yield Finding(f"Redeem {when}: p99 of its quiet one", Bound(most, TIMES), ratio(p99, quiet_ms), how)


def _stampede(site: Site, connections: int, seconds: int) -> people.Visit:
    """So many people at once who want a coupon. They take no CPU time that the service or a till wants."""
    users = MOST_A_SECOND * seconds
    wishes = people.issue(ISSUING, site.new_users(users), users, "key-")
    port, core = site.issuing[0].port, site.cores.load
    with people.visiting(port, wishes, connections, seconds, core, launcher=IDLY) as wrk:
        return people.read_visit(people.last_words(wrk, seconds), 0.0)


def _issued_a_second(site: Site, connections: int, seconds: int) -> float:
    seen = _stampede(site, connections, seconds)
    return (seen.answers.requests - seen.answers.refused) / seen.seconds
