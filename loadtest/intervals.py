"""Why: a curve is judged interval by interval: what was demanded, what was served, how long it took."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from loadtest.messages import NO_ANSWER, Answer, Verb
from loadtest.plan import Order, Plan

INTERVALS: Final = 60


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened from `from_s` on, seconds after the beginning, for the length of one interval.

    `demanded` is the curve's, `offered` are the orders that customers came with for the first time, all else counts
    where it was answered. Times are of issue requests; `late_p99_ms` is how late customers set out: the generator's
    own fault, not the service's.
    """

    from_s: float
    hour: float
    demanded: int
    offered: int
    issued: int
    paused: int
    refused: int
    busy: int
    redeemed: int
    issue_p50_ms: float
    issue_p99_ms: float
    late_p99_ms: float


def intervals(plan: Plan, orders: Iterable[Order], answers: Sequence[Answer]) -> list[Interval]:
    """Divide the rehearsal, and what came after its last order, into intervals of equal length."""
    length_s = plan.into_s / INTERVALS
    demanded = Counter(min(int(order.due_s // length_s), INTERVALS - 1) for order in orders)
    offered = Counter(int(answer.started_s // length_s) for answer in first_requests(answers))
    answered: dict[int, list[Answer]] = {}
    for answer in answers:
        answered.setdefault(int(answer.answered_s // length_s), []).append(answer)
    last = max(INTERVALS, max(answered, default=0) + 1)
    return [_interval(plan, i * length_s, demanded[i], offered[i], answered.get(i, ())) for i in range(last)]


def first_requests(answers: Iterable[Answer]) -> list[Answer]:
    """What became of the first request of each order."""
    first: dict[int, Answer] = {}
    for answer in answers:
        if answer.verb is Verb.ISSUE:
            first.setdefault(answer.order, answer)
    return list(first.values())


def _interval(plan: Plan, from_s: float, demanded: int, offered: int, answers: Sequence[Answer]) -> Interval:
    issue = [answer for answer in answers if answer.verb is Verb.ISSUE]
    took_ms = sorted((answer.answered_s - answer.started_s) * 1000 for answer in issue)
    late_ms = sorted((answer.started_s - answer.due_s) * 1000 for answer in issue)
    return Interval(
        from_s=round(from_s, 3),
        hour=round(plan.hour(from_s), 3),
        demanded=demanded,
        offered=offered,
        issued=sum(answer.granted for answer in issue),
        paused=sum(answer.reason == "issuance_paused" for answer in issue),
        refused=sum(400 <= answer.status < 500 and answer.status != 429 for answer in issue),
        busy=sum(answer.status in (NO_ANSWER, 429, 503) and answer.reason != "issuance_paused" for answer in issue),
        redeemed=sum(answer.verb is Verb.REDEEM and answer.granted for answer in answers),
        issue_p50_ms=quantile(took_ms, 0.5),
        issue_p99_ms=quantile(took_ms, 0.99),
        late_p99_ms=quantile(late_ms, 0.99),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of the ordered values do not exceed, to the tenth; 0 if there are none."""
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 1) if ordered else 0.0
