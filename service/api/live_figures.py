"""What the store and the breaker say at the moment of a scrape, as gauges."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service import __version__
from service.api.metrics import MAX_CAMPAIGN_LABELS
from service.api.parts import Parts
from service.domain.breaker import Mode, State
from service.domain.campaign import CampaignStatus, scheduled_status
from service.domain.coupon import Counters
from service.domain.ramp import ALL
from service.domain.webhooks import Health, Webhook
from service.store.catalogue import CampaignLedger
from service.store.extension_progress import ExtensionProgress
from service.store.jobs import QueueFigures
from service.store.long_jobs import JobRecord
from service.store.recounts import Recount
from service.store.scripts import StoreError

QUEUE_STATES = ("queued", "started", "failed", "scheduled")
RECOUNTED = ("coupons", "money", "wrong")
LEDGER_STATES = ("outstanding", "reserved", "redeemed", "expired", "deactivated")


@dataclass(frozen=True, slots=True)
class StoreFigures:
    """What one look at the store gave."""

    ledgers: list[CampaignLedger]
    extensions: list[ExtensionProgress]
    recounts: dict[str, Recount]
    memory_bytes: int
    memory_max_bytes: int
    queue: QueueFigures
    jobs: list[JobRecord]
    webhooks: list[tuple[Webhook, Health]]


async def exposition(parts: Parts) -> bytes:
    """The live figures in Prometheus' text format; without the store, only that it is away."""
    try:
        figures = await _look(parts)
    except StoreError:
        figures = None
    registry = CollectorRegistry()
    registry.register(_Families([*_process_families(parts, figures is not None), *_store_families(figures)]))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


async def _look(parts: Parts) -> StoreFigures:
    campaigns = (await parts.catalogue.list())[:MAX_CAMPAIGN_LABELS]
    ledgers = [await parts.catalogue.ledger(campaign) for campaign in campaigns]
    latest = [
        await parts.extensions.progress(ledger.campaign, ledger.extensions) for ledger in ledgers if ledger.extensions
    ]
    recounts = {campaign.id: await parts.recounts.latest(campaign) for campaign in campaigns}
    memory_bytes, memory_max_bytes = await parts.catalogue.store_memory()
    return StoreFigures(
        ledgers,
        [progress for progress in latest if progress is not None],
        {campaign: recount for campaign, recount in recounts.items() if recount is not None},
        memory_bytes,
        memory_max_bytes,
        await parts.jobs.figures(),
        await parts.long_jobs.open_jobs(),
        await parts.webhooks.list(),
    )


def _gauge(name: str, help_text: str, labels: Iterable[str], samples: Iterable[tuple[Iterable[str], float]]) -> Metric:
    family = GaugeMetricFamily(f"tidegate_{name}", help_text, labels=list(labels))
    for values, value in samples:
        family.add_metric(list(values), value)
    return family


def _process_families(parts: Parts, store_up: bool) -> Iterator[Metric]:
    yield _gauge("build_info", "The version that runs", ["version"], [([__version__], 1)])
    yield _gauge("store_up", "Whether the store answers", [], [([], store_up)])
    if not parts.guards_issue:
        return
    breaker = parts.breaker
    record = breaker.record
    yield _gauge("breaker_state", "The breaker's state", ["state"], [([s], record.state is s) for s in State])
    yield _gauge("breaker_mode", "Who rules it", ["mode"], [([m], record.override.mode is m) for m in Mode])
    yield _gauge("breaker_share_ratio", "Share of users let in", [], [([], breaker.share_permille / ALL)])
    yield _gauge("status_listeners", "Who follows the status here", [], [([], parts.noticeboard.listeners)])
    waiting = [([name], sight.line.waiting) for name, sight in parts.waiting_rooms.lines.items()]
    yield _gauge("waiting_room_tickets", "Tickets not called yet", ["campaign"], waiting)
    signals = [([signal], value) for signal, value in breaker.sample.items()]
    yield _gauge("breaker_signal", "The signals that open it", ["signal"], signals)
    yield _gauge("in_flight_limit", "Requests to issue that may be in flight", [], [([], breaker.in_flight_limit)])
    campaigns = list(breaker.campaigns.items())[:MAX_CAMPAIGN_LABELS]
    yield _gauge(
        "campaign_breaker_state",
        "The state of the campaigns' own breakers",
        ["campaign", "state"],
        [([name, s], circuit.record.state is s) for name, circuit in campaigns for s in State],
    )
    yield _gauge(
        "campaign_breaker_mode",
        "Who rules them",
        ["campaign", "mode"],
        [([name, m], circuit.mode is m) for name, circuit in campaigns for m in Mode],
    )
    yield _gauge(
        "campaign_breaker_signal",
        "The signals that open them",
        ["campaign", "signal"],
        [([name, signal], value) for name, circuit in campaigns for signal, value in circuit.sample.items()],
    )


def _store_families(figures: StoreFigures | None) -> Iterator[Metric]:
    if figures is None:
        return
    yield _gauge("store_memory_bytes", "Memory that the store uses", [], [([], figures.memory_bytes)])
    yield _gauge("store_memory_max_bytes", "Memory that it may use; 0, any", [], [([], figures.memory_max_bytes)])
    queue = figures.queue
    jobs = [([queue.name, state], getattr(queue, state)) for state in QUEUE_STATES]
    yield _gauge("queue_jobs", "Jobs by state", ["queue", "state"], jobs)
    oldest = [([queue.name], queue.oldest_age_s)]
    yield _gauge("queue_oldest_job_age_seconds", "Age of the job that waits longest", ["queue"], oldest)
    progress = [
        ([made.campaign_id, str(made.number)], made.done / made.total if made.total else 1.0)
        for made in figures.extensions
    ]
    yield _gauge("extension_progress_ratio", "Write-through of extensions", ["campaign", "extension"], progress)
    yield from _long_job_families(figures.jobs)
    failing = [([hook.id], health.failing_since_ms / 1000) for hook, health in figures.webhooks if health.failures]
    yield _gauge("webhook_failing_since_timestamp_seconds", "When their failures began", ["webhook"], failing)
    yield from _campaign_families(figures.ledgers)
    yield from _recount_families(figures)


def _campaign_families(ledgers: list[CampaignLedger]) -> Iterator[Metric]:
    def each(name: str, help_text: str, value: "dict[str, float]") -> Metric:
        return _gauge(name, help_text, ["campaign"], [([campaign], number) for campaign, number in value.items()])

    counters: dict[str, Counters] = {ledger.campaign.id: ledger.counters for ledger in ledgers}
    yield _gauge(
        "campaign_status",
        "Where campaigns stand",
        ["campaign", "status"],
        [([x.campaign.id, s], scheduled_status(x.campaign, x.now_ms) is s) for x in ledgers for s in CampaignStatus],
    )
    yield _gauge(
        "coupons",
        "Coupons by state",
        ["campaign", "status"],
        [([campaign, s], getattr(counter, s)) for campaign, counter in counters.items() for s in LEDGER_STATES],
    )
    yield each("coupons_issued", "Coupons ever issued", {c: n.issued for c, n in counters.items()})
    yield each(
        "coupon_conservation_error", "Issued minus all states", {c: n.conservation_error for c, n in counters.items()}
    )
    yield each("coupons_remaining", "Coupons not issued yet", {x.campaign.id: x.remaining for x in ledgers})
    yield each("bucket_tokens", "Tokens in the campaign's bucket", {x.campaign.id: x.bucket_tokens for x in ledgers})
    yield _gauge(
        "budget_remaining",
        "Money not committed, in minor units",
        ["campaign", "currency"],
        [
            ([x.campaign.id, x.campaign.benefit.currency], x.budget_remaining)
            for x in ledgers
            if x.budget_remaining is not None
        ],
    )
    yield _gauge(
        "liability",
        "What usable coupons can cost at most, in minor units",
        ["campaign", "currency"],
        [([x.campaign.id, x.campaign.benefit.currency], x.amounts.liability) for x in ledgers],
    )
    yield _gauge(
        "money_issued",
        "What all coupons ever issued could cost at most, drawn amounts included, in minor units",
        ["campaign", "currency"],
        [([x.campaign.id, x.campaign.benefit.currency], x.amounts.issued) for x in ledgers],
    )
    yield _gauge(
        "money_conservation_error",
        "How far the money of all states is from what was issued and is committed, in minor units",
        ["campaign", "currency"],
        [([x.campaign.id, x.campaign.benefit.currency], x.money_conservation_error) for x in ledgers],
    )


def _long_job_families(jobs: list[JobRecord]) -> Iterator[Metric]:
    """Of each kind and campaign the job that has been open for longest: the others wait for it."""
    oldest: dict[tuple[str, str], JobRecord] = {}
    for job in jobs:
        oldest.setdefault((job.kind, job.campaign_id), job)
    shown = list(oldest.items())[:MAX_CAMPAIGN_LABELS]
    labels = ["kind", "campaign"]
    done = [(place, float(job.progress.done)) for place, job in shown]
    yield _gauge("long_job_done", "How far the oldest open job of a kind is", labels, done)
    opened = [(place, job.opened_at_ms / 1000) for place, job in shown]
    yield _gauge("long_job_opened_timestamp_seconds", "When that job was opened", labels, opened)


def _recount_families(figures: StoreFigures) -> Iterator[Metric]:
    now_ms = {ledger.campaign.id: ledger.now_ms for ledger in figures.ledgers}
    yield _gauge(
        "recount_error",
        "How far ledger and records are apart: coupons, money in minor units, wrong records",
        ["campaign", "of"],
        [([campaign, of], getattr(r, of)) for campaign, r in figures.recounts.items() for of in RECOUNTED],
    )
    ages = [([campaign], (now_ms[campaign] - r.at_ms) / 1000) for campaign, r in figures.recounts.items()]
    yield _gauge("recount_age_seconds", "Since the records were last counted to the end", ["campaign"], ages)
