"""Metrics: what this process counted, in Prometheus' words; what the store says at a scrape is in `live_figures`.

The hot path counts once a batch. No label names a user, a code or a key, and only so many campaigns get one of their
own.
"""

import os
from bisect import bisect_left
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from service.api.leadership import SHARED_METRICS, Leadership
from service.api.outcome_label import outcome_label
from service.domain.outcomes import IssuancePaused, IssueOutcome, NotServed, Overloaded, RedeemOutcome
from service.gate.signals import BatchReport
from service.gate.transition import Transition
from service.store.catalogue import KnownCampaign

Verb = Literal["issue", "redeem"]
Whom = Literal["newcomer", "ticket_holder", "redemption"]
"""Classes of callers, in the order in which an overloaded process sheds them."""
MAX_CAMPAIGN_LABELS: Final = 100
OTHER: Final = "other"
PAUSED: Final = outcome_label(IssuancePaused("breaker", 0))
SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# Nobody asks when a series began, and it doubles the exposition.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no types here


class TalliedHistogram(Histogram):
    """A histogram that can take a whole second's observations at once."""

    @property
    def bounds(self) -> Sequence[float]:
        """The upper bounds of its buckets, of which the last is infinite."""
        return self._upper_bounds

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add `counts[i]` observations to the i-th bucket, whose values sum to `total`."""
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(total)


class HistogramTally:
    """What a histogram is to observe, counted in plain numbers until somebody asks."""

    __slots__ = ("_bounds", "_counts", "_histogram", "_total")

    def __init__(self, histogram: TalliedHistogram) -> None:
        self._histogram = histogram
        self._bounds = histogram.bounds
        self._counts = [0] * len(self._bounds)
        self._total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def flush(self) -> None:
        """Hand over to the histogram what was counted since the last time."""
        self._histogram.add(self._counts, self._total)
        self._counts = [0] * len(self._counts)
        self._total = 0.0


class Metrics:
    """This process's counters and histograms."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._leadership = Leadership()
        self._campaigns: set[str] = set()
        self._issues = Counter(
            "tidegate_issue_total", "Requests to issue, by outcome", ["campaign", "outcome"], registry=self.registry
        )
        self._redemptions = Counter(
            "tidegate_redeem_total", "Requests to redeem, by outcome", ["campaign", "outcome"], registry=self.registry
        )
        self._transitions = Counter(
            "tidegate_breaker_transitions_total",
            "Changes of the breaker's state",
            ["from", "to", "reason"],
            registry=self.registry,
        )
        self._campaign_transitions = Counter(
            "tidegate_campaign_breaker_transitions_total",
            "Changes of a campaign's breaker's state",
            ["campaign", "from", "to", "reason"],
            registry=self.registry,
        )
        self._shadow_refusals = Counter(
            "tidegate_breaker_shadow_refusals_total",
            "Requests that a breaker in shadow would have refused",
            ["campaign"],
            registry=self.registry,
        )
        self._holds = Counter(
            "tidegate_breaker_holds_total",
            "Times that the store owed an answer for so long that all were told to wait for it",
            registry=self.registry,
        )
        self._sheds = Counter(
            "tidegate_shed_total",
            "Requests refused because the process is overloaded, by class of the caller",
            ["class"],
            registry=self.registry,
        )
        for whom in get_args(Whom):
            self._sheds.labels(whom)
        self._slow_lane = Counter(
            "tidegate_slow_lane_total",
            "Requests to issue or redeem that took the FastAPI lane, where each costs far more",
            ["call"],
            registry=self.registry,
        )
        for call in get_args(Verb):
            self._slow_lane.labels(call)
        self._abandoned = Counter(
            "tidegate_waiting_room_abandoned_total",
            "Places in line that were called and not used",
            ["campaign"],
            registry=self.registry,
        )
        self._failures = Counter(
            "tidegate_store_call_failures_total", "Store calls that failed", ["verb", "kind"], registry=self.registry
        )
        self._batch_size = TalliedHistogram(
            "tidegate_batch_size", "Requests in one store call", ["verb"], buckets=SIZES, registry=self.registry
        )
        self._batch_wait = TalliedHistogram(
            "tidegate_batch_wait_seconds",
            "How long the oldest request of a batch waited for it to leave",
            ["verb"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._store_call = TalliedHistogram(
            "tidegate_store_call_seconds",
            "How long a store call took",
            ["verb"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._durations = TalliedHistogram(
            "tidegate_http_request_duration_seconds",
            "From a request's head to the end of its answer",
            ["call", "status"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._requests: dict[tuple[str, int], HistogramTally] = {}
        self._batches = {verb: self._batch_tallies(verb) for verb in ("issue", "redeem", "ticket", "claim")}
        self._outcomes: dict[tuple[Verb, str], Tally[str]] = defaultdict(Tally)
        self._paused: defaultdict[KnownCampaign | None, int] = defaultdict(int)
        self._shed: Tally[Whom] = Tally()

    def observe_request(self, call: str, status: int, seconds: float) -> None:
        """Count an HTTP request: `call` is issue, redeem, stream or other."""
        status_class = status // 100
        tally = self._requests.get((call, status_class))
        if tally is None:
            tally = self._requests[call, status_class] = HistogramTally(
                self._durations.labels(call, f"{status_class}xx")
            )
        tally.observe(seconds)

    def count_slow(self, call: str) -> None:
        """Count a request to issue or redeem that the fast lane did not answer."""
        self._slow_lane.labels(call).inc()

    def observe_batch(self, report: BatchReport) -> None:
        """Count a store call."""
        size, wait, store_call = self._batches[report.verb]
        size.observe(report.size)
        wait.observe(report.waited_s)
        store_call.observe(report.store_s)
        if report.failure is not None:
            self._failures.labels(report.verb, report.failure).inc()

    def count_issues(self, known: KnownCampaign, outcomes: Sequence[IssueOutcome]) -> None:
        """Count the outcomes of one batch."""
        self._count("issue", known, outcomes)

    def count_redemptions(self, known: KnownCampaign, outcomes: Sequence[RedeemOutcome]) -> None:
        """Count the outcomes of one batch."""
        self._count("redeem", known, outcomes)

    def count_unserved(
        self,
        verb: Verb,
        known: KnownCampaign | None,
        outcome: IssuancePaused | NotServed,
        whom: Whom = "newcomer",
    ) -> None:
        """Count an outcome that no batch decided. An unknown campaign's name is the caller's, and no label."""
        if isinstance(outcome, Overloaded):
            self._shed[whom] += 1
        self._outcomes[verb, self._label_of(known)][outcome_label(outcome)] += 1

    def count_paused(self, known: KnownCampaign | None) -> None:
        """Count one of a stampede that is refused: as `count_unserved` does, but what it is called is asked later."""
        self._paused[known] += 1

    def count_transition(self, transition: Transition) -> None:
        """Count a change of a breaker's state; an override that changes none is not one.

        Every process hears of it, and one of those whose counts are added up counts it.
        """
        before, after = transition.before, transition.after
        if before.state is after.state or not self._leadership.is_ours():
            return
        change = (before.state, after.state, after.reason)
        if transition.campaign_id:
            self._campaign_transitions.labels(self.campaign_label(transition.campaign_id), *change).inc()
        else:
            self._transitions.labels(*change).inc()

    def count_hold(self) -> None:
        """Count that everybody waits for the store."""
        self._holds.inc()

    def count_shadow_refusal(self, known: KnownCampaign | None) -> None:
        """Count a request that a breaker in shadow would have refused."""
        self._shadow_refusals.labels(self._label_of(known)).inc()

    def count_abandoned(self, campaign_id: str, places: int) -> None:
        """Count places in the campaign's line whose holders did not come when they were called."""
        self._abandoned.labels(self.campaign_label(campaign_id)).inc(places)

    def campaign_label(self, campaign_id: str) -> str:
        """The campaign's id, or `other` once too many have one."""
        if campaign_id not in self._campaigns:
            if len(self._campaigns) >= MAX_CAMPAIGN_LABELS:
                return OTHER
            self._campaigns.add(campaign_id)
        return campaign_id

    def _label_of(self, known: KnownCampaign | None) -> str:
        return OTHER if known is None else self.campaign_label(known.campaign.id)

    def flush(self) -> None:
        """Put what was tallied where a scrape finds it, in this process or another."""
        for tally in (*self._requests.values(), *chain(*self._batches.values())):
            tally.flush()
        for (verb, campaign), outcomes in self._outcomes.items():
            counter = self._issues if verb == "issue" else self._redemptions
            for outcome, number in outcomes.items():
                counter.labels(campaign, outcome).inc(number)
        self._outcomes.clear()
        for known, number in self._paused.items():
            self._issues.labels(self._label_of(known), PAUSED).inc(number)
        self._paused.clear()
        for whom, number in self._shed.items():
            self._sheds.labels(whom).inc(number)
        self._shed.clear()

    def exposition(self) -> bytes:
        """What was counted, in Prometheus' text format; with several API processes, by all of them."""
        self.flush()
        if SHARED_METRICS not in os.environ:
            return generate_latest(self.registry)
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)  # type: ignore[no-untyped-call]  # the library has no types here
        return generate_latest(everyone)

    def _batch_tallies(self, verb: str) -> list[HistogramTally]:
        histograms = self._batch_size, self._batch_wait, self._store_call
        return [HistogramTally(histogram.labels(verb)) for histogram in histograms]

    def _count(self, verb: Verb, known: KnownCampaign, outcomes: Sequence[IssueOutcome | RedeemOutcome]) -> None:
        self._outcomes[verb, self._label_of(known)].update(map(outcome_label, outcomes))
