"""Why: speed that loses or invents a coupon is none, so every measured run is counted up afterwards."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from loadtest import incident
from service.cli.remote import Remote
from service.domain.coupon import CouponStatus
from service.domain.ledger import NO_COUPON, STATUSES
from service.store.audit import COUPONS_PER_CALL
from service.store.scripts import STORE_CLOCK, load

STATES: Final = ("outstanding", "reserved", "redeemed", "expired", "deactivated")
GRANTED: Final = frozenset({"issued", "redeemed", "replayed"})
OUTCOMES: Final = ("tidegate_issue_total", "tidegate_redeem_total")
CHANGES: Final = ("issued", "redeemed")
"""Outcomes that change a coupon, by the names that its counters have as well."""
REDEEMED: Final = STATUSES.index(CouponStatus.REDEEMED) + 1
KEYS_A_SCAN: Final = 1_000
CALL_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What the people saw: all answers, those that were refusals, and requests that were never answered."""

    requests: int
    refused: int
    broken: int


@dataclass(frozen=True, slots=True)
class Tally:
    """How often a campaign had which outcome, and what became of its coupons: by its counters, and by counting.

    `paid_for` is how many coupons the committed budget is worth.
    """

    outcomes: Mapping[str, int] = field(default_factory=dict)
    issued: int = 0
    redeemed: int = 0
    records: int = 0
    redeemed_records: int = 0
    paid_for: int = 0
    conservation_error: int = 0

    def since(self, before: "Tally", outcome: str) -> int:
        """How often that outcome has come since an earlier tally."""
        return self.outcomes.get(outcome, 0) - before.outcomes.get(outcome, 0)


def answer_violations(answers: Answers, outcome: str) -> Iterator[str]:
    """What is wrong with the answers of a run in which every request should have had one outcome."""
    if answers.broken:
        yield f"{answers.broken:,} requests were not answered"
    if answers.refused != (0 if outcome in GRANTED else answers.requests):
        yield f"{answers.refused:,} of {answers.requests:,} answers were refusals"


def ledger_violations(answers: Answers, connections: int, outcome: str, before: Tally, after: Tally) -> Iterator[str]:
    """What is wrong with the ledger after such a run.

    When the people leave, one request of each connection may have been decided that nobody waited for.
    """
    least, most = answers.requests, answers.requests + connections
    for name in {outcome, *after.outcomes}:
        grown = after.since(before, name)
        if not (least <= grown <= most if name == outcome else grown == 0):
            yield f"{answers.requests:,} requests were answered, and {grown:,} counted as {name}"
    for name, grown in zip(CHANGES, (after.issued - before.issued, after.redeemed - before.redeemed), strict=True):
        if not (least <= grown <= most if name == outcome else grown == 0):
            yield f"{answers.requests:,} requests were answered, and {grown:,} coupons {name}"
    yield from disagreements(after)


def disagreements(tally: Tally) -> Iterator[str]:
    """Where a campaign's counters, its records and its money do not say the same."""
    if not tally.issued == tally.records == tally.paid_for:
        yield f"{tally.issued:,} issued, {tally.records:,} records, {tally.paid_for:,} charged to the budget"
    if tally.redeemed != tally.redeemed_records:
        yield f"{tally.redeemed:,} redeemed, and {tally.redeemed_records:,} records say so"
    if tally.conservation_error:
        yield f"the conservation error is {tally.conservation_error:,}"


def tidegate_tally(service: Remote, metrics_url: str, store: Redis, campaign_id: str) -> Tally:
    """Count up one of Tidegate's campaigns. Raises CommandError or httpx.HTTPError."""
    campaign = service.get(f"/v1/campaigns/{campaign_id}")
    counters: dict[str, int] = campaign["counters"]
    statuses: Counter[int] = Counter()
    for state_key in store.scan_iter(f"tg:{{{campaign_id}:*}}:state", count=KEYS_A_SCAN):
        statuses += _statuses(store, state_key)
    return Tally(
        outcomes=_outcomes(metrics_url, campaign_id),
        issued=counters["issued"],
        redeemed=counters["redeemed"],
        records=statuses.total(),
        redeemed_records=statuses[REDEEMED],
        paid_for=(campaign["budget"]["amount"] - counters["budget_remaining"]) // incident.COUPON_FEN,
        conservation_error=counters["issued"] - sum(counters[state] for state in STATES),
    )


def baseline_tally(store: Redis, campaign_id: str) -> Tally:
    """Count up the one campaign of a baseline, each of whose users has one coupon."""
    campaign = store.hgetall(f"campaign:{{{campaign_id}}}")
    issued, committed, amount = (int(campaign[name]) for name in ("issued", "committed", "amount"))
    return Tally(
        outcomes={"issued": issued},
        issued=issued,
        # Besides coupons and as many users there are the campaign and its events, which begin with the first coupon.
        records=(store.dbsize() - 1) // 2,
        paid_for=committed // amount,
        conservation_error=issued - store.xlen(f"events:{{{campaign_id}}}"),
    )


def _statuses(store: Redis, state_key: str) -> Counter[int]:
    """How many records of a shard have which status."""
    script, first = load("audit_records", STORE_CLOCK).source, 0
    found: Counter[int] = Counter()
    while True:
        _, statuses, _ = store.eval(script, 1, state_key, str(first), str(COUPONS_PER_CALL))
        here = Counter(map(ord, statuses))
        del here[NO_COUPON]
        if not here:
            return found
        first, found = first + COUPONS_PER_CALL, found + here


def _outcomes(metrics_url: str, campaign_id: str) -> dict[str, int]:
    answer = httpx.get(metrics_url, timeout=CALL_TIMEOUT_S, trust_env=False)
    return {
        sample.labels["outcome"]: int(sample.value)
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name in OUTCOMES and sample.labels["campaign"] == campaign_id
    }
