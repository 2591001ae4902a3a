"""Act: the store hangs, or is killed and comes back, while everybody goes on asking."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, Literal

from loadtest.bench.campaigns import open_campaign
from loadtest.bench.figures import Bound
from loadtest.overload.answers import Answer, Task
from loadtest.overload.findings import Finding
from loadtest.overload.site import Site
from loadtest.overload.storm import REDEEMED_A_SECOND
from loadtest.overload.stream import coming, visit
from loadtest.overload.watch import Watch, watching

ISSUED_A_SECOND: Final = 300
BEFORE_S: Final = 3.0
FULL_AGAIN_S: Final = 75.0
AFTERWARDS_S: Final = 3.0
POLL_S: Final = 0.1
SPARE_S: Final = 10.0
FAST_S: Final = 0.05
FULL: Final = 0.95
MOST_MEMORY_MIB: Final = 64

Kind = Literal["hung", "killed"]


def rehearse(site: Site, kind: Kind, seconds: int) -> Iterator[Finding]:
    """Take the store away for that long under load, give it back, and count up what came of it."""
    issuing, redeeming = f"overload-{kind}", f"overload-{kind}-tills"
    for campaign_id in (issuing, redeeming):
        open_campaign(site.remote, campaign_id)
    longest_s = BEFORE_S + seconds + FULL_AGAIN_S + AFTERWARDS_S
    people, orders = round(ISSUED_A_SECOND * longest_s), round(REDEEMED_A_SECOND * longest_s)
    codes = str(site.new_codes(redeeming, orders))
    task = Task("issue", issuing, site.ports, people, ISSUED_A_SECOND, longest_s, 256, site.new_users(people))
    redeem = Task("redeem", codes, (site.redeeming.port,), orders, REDEEMED_A_SECOND, longest_s, 32)
    with watching(site) as watch:
        with coming(task, site.cores.load) as users, coming(redeem, site.cores.load) as tills:
            time.sleep(BEFORE_S)
            away_s, back_s = _take_away(site, kind, seconds)
            _wait_until_issuing(watch, back_s)
            users.send_away()
            tills.send_away()
            answers, redeemed = users.answers(), tills.answers()
        yield from _timeliness(kind, watch, answers, away_s, back_s)
    again = Task("redeem", codes, (site.redeeming.port,), len(redeemed), len(redeemed), SPARE_S, 32, order="another")
    twice = redeemed_twice(redeemed, visit(again, site.cores.load))
    how = f"{sum(answer.granted for answer in redeemed):,} redemptions, all codes brought again by other orders"
    yield Finding(f"Store {kind}: codes redeemed twice", Bound(0, "codes"), twice, how)
    yield from _ledger(site, kind, issuing, answers)


def _take_away(site: Site, kind: Kind, seconds: int) -> tuple[float, float]:
    """Take the store away for a while; return when it went and when it was back."""
    away_s = time.monotonic()
    site.store.hang() if kind == "hung" else site.store.kill()
    time.sleep(seconds)
    back_s = time.monotonic()
    site.store.wake() if kind == "hung" else site.store.start()
    return away_s, back_s


def _wait_until_issuing(watch: Watch, back_s: float) -> None:
    while time.monotonic() < back_s + FULL_AGAIN_S and not watch.all_say("issuing"):
        time.sleep(POLL_S)
    time.sleep(AFTERWARDS_S)


def _timeliness(kind: Kind, watch: Watch, answers: Sequence[Answer], away_s: float, back_s: float) -> Iterator[Finding]:
    how = f"{sum(answer.paused for answer in answers):,} of {len(answers):,} were sent away"
    yield Finding(f"Store {kind}: first fast 503", Bound(300, "ms"), first_fast_ms(answers, away_s), how)
    how = "the last process to say so, from the moment the store was away"
    yield Finding(f"Store {kind}: paused in every process", Bound(500, "ms"), watch.first_ms("paused", away_s), how)
    how = "the process that grew most, since before"
    yield Finding(f"Store {kind}: memory", Bound(MOST_MEMORY_MIB, "MiB"), watch.growth_mib(), how)
    how = "the process that paused most often"
    yield Finding(f"Store {kind}: pauses", Bound(1, "pauses"), watch.most_pauses(away_s), how)
    how = f"from then on {FULL:.0%} of those who asked got a coupon in every second"
    yield Finding(f"Store {kind}: full rate after its return", Bound(75, "s"), full_after_s(answers, back_s), how)


def first_fast_ms(answers: Sequence[Answer], away_s: float) -> float | None:
    """When the last of the processes first refused at once; None where one never did."""
    fast = [one for one in answers if one.paused and one.seconds <= FAST_S and one.asked_s >= away_s]
    firsts = {
        port: min((one.answered_s for one in fast if one.port == port), default=None)
        for port in {one.port for one in answers}
    }
    known = [first for first in firsts.values() if first is not None]
    return (max(known) - away_s) * 1000 if len(known) == len(firsts) else None


def redeemed_twice(first: Sequence[Answer], again: Sequence[Answer]) -> int | None:
    """How many codes another order redeemed once more; None where none was redeemed at all."""
    redeemed = {answer.visitor for answer in first if answer.granted}
    return len(redeemed & {answer.visitor for answer in again if answer.granted}) if redeemed else None


def full_after_s(answers: Sequence[Answer], back_s: float) -> float | None:
    """How long after the store's return every whole second was a full one; None if the last one was not."""
    asked, granted = Counter[int](), Counter[int]()
    for answer in answers:
        if answer.asked_s >= back_s:
            asked[int(answer.asked_s - back_s)] += 1
            granted[int(answer.asked_s - back_s)] += answer.granted
    poor = [second for second in asked if granted[second] < FULL * asked[second]]
    if not asked or (poor and max(poor) >= max(asked) - 1):
        return None
    return float(max(poor) + 1) if poor else 0.0


def _ledger(site: Site, kind: Kind, campaign_id: str, answers: Sequence[Answer]) -> Iterator[Finding]:
    """Whether what is issued was asked for, what was promised is issued, and there is a record of each."""
    assert site.service.system.tally is not None
    tally = site.service.system.tally(campaign_id)
    promised = len({answer.visitor for answer in answers if answer.granted})
    asked = len({answer.visitor for answer in answers})
    how = f"{asked:,} asked, {promised:,} were promised one, {tally.issued:,} are issued, {tally.records:,} records"
    wrong = (
        max(0, tally.issued - asked)
        + max(0, promised - tally.issued)
        + abs(tally.issued - tally.records)
        + abs(tally.conservation_error)
    )
    yield Finding(f"Store {kind}: coupons too many, lost or unaccounted for", Bound(0, "coupons"), wrong, how)
