"""Why: a rehearsal is worth its verdict: each promise is held against what customers were told and the service says.

Nothing here asks anybody anything: evidence goes in, checks come out, and a test can feed it the figures of a bad day.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Final

from loadtest.evidence import Evidence
from loadtest.messages import NO_ANSWER, Answer, Verb

ALLOWED_REFUSALS: Final = frozenset(
    {
        (Verb.ISSUE, "issuance_paused"),
        (Verb.ISSUE, "per_user_limit"),
        (Verb.ISSUE, "sold_out"),
        (Verb.ISSUE, "budget_exhausted"),
        (Verb.ISSUE, "rate_limited"),
        (Verb.ISSUE_AGAIN, "issuance_paused"),
        (Verb.REDEEM, "merchant_busy"),
        (Verb.REDEEM_ELSEWHERE, "already_redeemed"),
    }
)
"""What a customer may be told instead of yes."""
TOO_BUSY: Final = frozenset({"overloaded", "store_unavailable"})
"""What anybody may be told, to come back later; no answer at all is counted apart."""
MOST_SILENT: Final = 0.01
"""Of so many requests a customer on a busy machine may give up waiting, and ask again."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, what was seen of it, and whether it was kept."""

    promise: str
    seen: str
    kept: bool


def judge(evidence: Evidence) -> tuple[Check, ...]:
    """Hold every promise against the evidence."""
    return (
        *_stock(evidence),
        *_limits(evidence),
        *_ledger(evidence),
        *_replays(evidence),
        *_redemptions(evidence),
        *_pause(evidence),
        *_extension(evidence),
        *_service(evidence),
    )


def _stock(evidence: Evidence) -> tuple[Check, ...]:
    codes = _issued_codes(evidence)
    counted = evidence.counters["issued"]
    return (
        Check(
            "Every coupon that was answered is counted, and no other",
            f"{len(codes):,} answered, {counted:,} counted",
            0 < len(codes) == counted,
        ),
        Check(
            "Every order has a code of its own",
            f"{len(set(codes.values())):,} codes for {len(codes):,} orders",
            len(set(codes.values())) == len(codes),
        ),
    )


def _limits(evidence: Evidence) -> tuple[Check, ...]:
    promise, counters = evidence.promise, evidence.counters
    holders = Counter({answer.code: answer.user_id for answer in _granted(evidence, Verb.ISSUE)}.values())
    most = max(holders.values(), default=0)
    refused = sum(answer.reason == "per_user_limit" for answer in evidence.answers)
    spent = promise.budget - counters["budget_remaining"]
    return (
        Check(
            "Never more coupons than the campaign has",
            f"{counters['issued']:,} of {promise.max_coupons:,}",
            counters["issued"] <= promise.max_coupons,
        ),
        Check(
            "Never more coupons for a user than one may have",
            f"{most} of {promise.max_coupons_per_user} at most, {refused:,} requests refused",
            most <= promise.max_coupons_per_user,
        ),
        Check(
            "The budget is charged exactly and never exceeded",
            f"{spent:,} of {promise.budget:,} committed",
            0 <= spent <= promise.budget and spent == counters["issued"] * promise.coupon_amount,
        ),
    )


def _ledger(evidence: Evidence) -> tuple[Check, ...]:
    errors, metric = evidence.conservation_errors, evidence.conservation_metric
    worst = max(map(abs, errors), default=None)
    return (
        Check(
            "Issued is the sum of its states, whenever it was asked",
            "never asked" if worst is None else f"error {worst} in {len(errors)} looks",
            worst == 0,
        ),
        Check(
            "tidegate_coupon_conservation_error is 0",
            "missing" if metric is None else f"{metric:g}",
            metric == 0,
        ),
    )


def _replays(evidence: Evidence) -> tuple[Check, ...]:
    return (
        _identical("The same key gets the same answer", _granted(evidence, Verb.ISSUE_AGAIN)),
        _identical("The same redemption gets the same answer", _granted(evidence, Verb.REDEEM_AGAIN)),
    )


def _identical(promise: str, again: Sequence[Answer]) -> Check:
    same = sum(answer.identical and answer.replayed for answer in again)
    return Check(promise, f"{same:,} of {len(again):,} identical and marked as replayed", 0 < len(again) == same)


def _redemptions(evidence: Evidence) -> tuple[Check, ...]:
    orders: dict[str, set[int]] = {}
    for answer in chain(_granted(evidence, Verb.REDEEM), _granted(evidence, Verb.REDEEM_ELSEWHERE)):
        orders.setdefault(answer.code, set()).add(answer.order)
    elsewhere = [answer for answer in evidence.answers if answer.verb is Verb.REDEEM_ELSEWHERE]
    twice = sum(answer.granted for answer in elsewhere) + sum(len(of_code) > 1 for of_code in orders.values())
    counted = evidence.counters["redeemed"]
    return (
        Check(
            "Every redeemed coupon is redeemed once",
            f"{len(orders):,} answered, {counted:,} counted, {twice} of {len(elsewhere):,} second orders granted",
            0 < len(orders) == counted and twice == 0,
        ),
    )


def _pause(evidence: Evidence) -> tuple[Check, ...]:
    pause = evidence.pause
    during = [a for a in evidence.answers if pause.confirmed_s <= a.started_s and a.answered_s <= pause.lifted_s]
    issue = [answer for answer in during if answer.verb is Verb.ISSUE]
    told = sum(answer.status == 503 and answer.reason == "issuance_paused" for answer in issue)
    # A merchant's own rate is the merchant's wish, paused or not; the customer comes back and is served.
    redeem = [answer for answer in during if answer.verb is Verb.REDEEM and answer.reason != "merchant_busy"]
    served = sum(answer.granted for answer in redeem)
    return (
        Check(
            "Paused, nobody is issued a coupon and everybody is told so",
            f"{told:,} of {len(issue):,} answered 503 issuance_paused",
            0 < len(issue) == told,
        ),
        Check(
            "Paused, redemption goes on",
            f"{served:,} of {len(redeem):,} succeeded",
            0 < len(redeem) == served,
        ),
    )


def _extension(evidence: Evidence) -> tuple[Check, ...]:
    extension = evidence.extension
    later = [
        answer.expires_at
        for answer in _granted(evidence, Verb.LOOK)
        if answer.started_s > extension.accepted_s and answer.coupon_status == "issued"
    ]
    first = sum(_same_instant(seen, extension.expires_at) for seen in extension.first_looks)
    rest = sum(_same_instant(seen, extension.expires_at) for seen in later)
    return (
        Check(
            "The extension holds at the first look after the 202",
            f"{first} of {len(extension.first_looks)} at once, {rest:,} of {len(later):,} later",
            0 < len(extension.first_looks) == first and rest == len(later),
        ),
        Check(
            "The extension is written through to every coupon that it concerns",
            f"{extension.status}, {extension.total:,} coupons walked, {extension.changed:,} changed",
            extension.status == "completed" and 0 < extension.changed <= extension.total,
        ),
    )


def _service(evidence: Evidence) -> tuple[Check, ...]:
    refused = [answer for answer in evidence.answers if not answer.granted and answer.status != NO_ANSWER]
    strange = Counter(
        f"{answer.verb.value}: {answer.status} {answer.reason}"
        for answer in refused
        if (answer.verb, answer.reason) not in ALLOWED_REFUSALS and answer.reason not in TOO_BUSY
    )
    silent = sum(answer.status == NO_ANSWER for answer in evidence.answers)
    settled = len(
        {answer.order for answer in evidence.answers if answer.verb is Verb.ISSUE and answer.status in (201, 409)}
    )
    return (
        Check(
            "Nobody gets an answer that should not exist",
            ", ".join(f"{count} of {what}" for what, count in strange.most_common(3))
            or f"none in {len(evidence.answers):,}; {silent} without answer",
            not strange and silent <= MOST_SILENT * len(evidence.answers),
        ),
        Check(
            "Everybody is served or refused for good before the deadline",
            f"{settled:,} of {evidence.demanded:,} orders, {evidence.left:,} errands left",
            settled == evidence.demanded and evidence.left == 0,
        ),
    )


def _granted(evidence: Evidence, verb: Verb) -> list[Answer]:
    return [answer for answer in evidence.answers if answer.verb is verb and answer.granted]


def _issued_codes(evidence: Evidence) -> dict[int, str]:
    return {answer.order: answer.code for answer in _granted(evidence, Verb.ISSUE)}


def _same_instant(first: str, second: str) -> bool:
    return bool(first) and datetime.fromisoformat(first) == datetime.fromisoformat(second)
