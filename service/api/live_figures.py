"""What the store and the breaker say at the moment of a scrape, as gauges."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service import __version__
from service.api.metrics import MAX_CAMPAIGN_LABELS
from service.api.parts import Parts
from service.domain.breaker import Mode, State
from service.domain.campaign import Campaign, CampaignStatus, scheduled_status
from service.domain.ramp import ALL
from service.domain.webhooks import Health, Webhook
from service.store.catalogue import CampaignLedger
from service.store.extension_progress import ExtensionProgress
from service.store.jobs import QueueFigures
from service.store.long_jobs import JobRecord
from service.store.recounts import Recount
from service.store.scripts import StoreError, StoreRefused

QUEUE_STATES = ("queued", "started", "failed", "scheduled")
RECOUNTED = ("coupons", "money", "wrong")
LEDGER_STATES = ("outstanding", "reserved", "redeemed", "expired", "deactivated")


@dataclass(frozen=True, slots=True)
class CampaignFigures:
    """What the store told of one campaign: its ledger, its latest extension and its last recount."""

    ledger: CampaignLedger
    extension: ExtensionProgress | None
    recount: Recount | None


@dataclass(slots=True)
class StoreFigures:
    """What one look at the store gave; what did not answer is left out."""

    memory_bytes: int
    memory_max_bytes: int
    queue: QueueFigures | None = None
    scheduler_seen_ms: int | None = None
    jobs: list[JobRecord] = field(default_factory=list)
    webhooks: list[tuple[Webhook, Health]] = field(default_factory=list)
    campaigns: list[CampaignFigures] = field(default_factory=list)


async def exposition(parts: Parts) -> bytes:
    """The live figures in Prometheus' text format; without the store, only that it is away."""
    figures: StoreFigures | None = None
    with suppress(StoreError):
        campaigns = await parts.catalogue.list()
        figures = StoreFigures(*await parts.catalogue.store_memory())
        await _look(parts, campaigns[:MAX_CAMPAIGN_LABELS], figures)
    registry = CollectorRegistry()
    registry.register(_Families([*_process_families(parts, figures is not None), *_store_families(figures)]))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


async def _look(parts: Parts, campaigns: Sequence[Campaign], figures: StoreFigures) -> None:
    # The queue may be on a server of its own, and is no reason to call the store down.
    with suppress(StoreError):
        figures.queue = await parts.jobs.figures()
    figures.scheduler_seen_ms = await parts.scheduler_heartbeat.latest_ms()
    figures.jobs = await parts.long_jobs.open_jobs()
    figures.webhooks = await parts.webhooks.list()
    for campaign in campaigns:
        # A damaged shard says nothing of the others; a silent store would keep the scrape waiting once for each.
        with suppress(StoreRefused):
            figures.campaigns.append(await _look_at(parts, campaign))


async def _look_at(parts: Parts, campaign: Campaign) -> CampaignFigures:
    ledger = await parts.catalogue.ledger(campaign)
    latest = await parts.extensions.progress(campaign, ledger.extensions) if ledger.extensions else None
    return CampaignFigures(ledger, latest, await parts.recounts.latest(campaign))


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
    yield _gauge(
        "breaker_state", "The breaker's state", ["state"], [([state], record.state is state) for state in State]
    )
    yield _gauge("breaker_mode", "Who rules it", ["mode"], [([mode], record.override.mode is mode) for mode in Mode])
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
        [([name, state], circuit.record.state is state) for name, circuit in campaigns for state in State],
    )
    yield _gauge(
        "campaign_breaker_mode",
        "Who rules them",
        ["campaign", "mode"],
        [([name, mode], circuit.mode is mode) for name, circuit in campaigns for mode in Mode],
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
    queues = [] if figures.queue is None else [figures.queue]
    jobs = [([queue.name, state], getattr(queue, state)) for queue in queues for state in QUEUE_STATES]
    yield _gauge("queue_jobs", "Jobs by state", ["queue", "state"], jobs)
    oldest = [([queue.name], queue.oldest_age_s) for queue in queues]
    yield _gauge("queue_oldest_job_age_seconds", "Age of the job that waits longest", ["queue"], oldest)
    seen_ms = figures.scheduler_seen_ms
    seen: list[tuple[list[str], float]] = [] if seen_ms is None else [([], seen_ms / 1000)]
    yield _gauge("scheduler_seen_timestamp_seconds", "When the scheduler last ended a look at what is due", [], seen)
    extensions = [campaign.extension for campaign in figures.campaigns if campaign.extension is not None]
    progress = [
        ([made.campaign_id, str(made.number)], made.done / made.total if made.total else 1.0) for made in extensions
    ]
    yield _gauge("extension_progress_ratio", "Write-through of extensions", ["campaign", "extension"], progress)
    yield from _long_job_families(figures.jobs)
    failing = [([hook.id], health.failing_since_ms / 1000) for hook, health in figures.webhooks if health.failures]
    yield _gauge("webhook_failing_since_timestamp_seconds", "When their failures began", ["webhook"], failing)
    yield from _campaign_families([campaign.ledger for campaign in figures.campaigns])
    yield from _recount_families(figures.campaigns)


def _campaign_families(ledgers: list[CampaignLedger]) -> Iterator[Metric]:
    def each(name: str, help_text: str, value_of: Callable[[CampaignLedger], float]) -> Metric:
        return _gauge(name, help_text, ["campaign"], [([ledger.campaign.id], value_of(ledger)) for ledger in ledgers])

    def money(name: str, help_text: str, amount_of: Callable[[CampaignLedger], float | None]) -> Metric:
        amounts = [(ledger.campaign, amount_of(ledger)) for ledger in ledgers]
        samples = [((of.id, of.benefit.currency), amount) for of, amount in amounts if amount is not None]
        return _gauge(name, f"{help_text}, in minor units", ["campaign", "currency"], samples)

    yield _gauge(
        "campaign_status",
        "Where campaigns stand",
        ["campaign", "status"],
        [
            ([ledger.campaign.id, status], scheduled_status(ledger.campaign, ledger.now_ms) is status)
            for ledger in ledgers
            for status in CampaignStatus
        ],
    )
    yield _gauge(
        "coupons",
        "Coupons by state",
        ["campaign", "status"],
        [
            ([ledger.campaign.id, state], getattr(ledger.counters, state))
            for ledger in ledgers
            for state in LEDGER_STATES
        ],
    )
    yield each("coupons_issued", "Coupons ever issued", lambda ledger: ledger.counters.issued)
    yield each(
        "coupon_conservation_error", "Issued minus all states", lambda ledger: ledger.counters.conservation_error
    )
    yield each("coupons_remaining", "Coupons not issued yet", lambda ledger: ledger.remaining)
    yield each("bucket_tokens", "Tokens in the campaign's bucket", lambda ledger: ledger.bucket_tokens)
    yield money("budget_remaining", "Money not committed", lambda ledger: ledger.budget_remaining)
    yield money("liability", "What usable coupons can cost at most", lambda ledger: ledger.amounts.liability)
    yield money(
        "money_issued",
        "What all coupons ever issued could cost at most, drawn amounts included",
        lambda ledger: ledger.amounts.issued,
    )
    yield money(
        "money_conservation_error",
        "How far the money of all states is from what was issued and is committed",
        lambda ledger: ledger.money_conservation_error,
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


def _recount_families(campaigns: list[CampaignFigures]) -> Iterator[Metric]:
    counted = [(campaign.ledger, campaign.recount) for campaign in campaigns if campaign.recount is not None]
    yield _gauge(
        "recount_error",
        "How far ledger and records are apart: coupons, money in minor units, wrong records",
        ["campaign", "of"],
        [([ledger.campaign.id, of], getattr(recount, of)) for ledger, recount in counted for of in RECOUNTED],
    )
    # Where no recount has ever ended, its age is the campaign's: nobody would miss a figure that never was there.
    ages = [([of.ledger.campaign.id], (of.ledger.now_ms - _counted_at_ms(of)) / 1000) for of in campaigns]
    yield _gauge("recount_age_seconds", "Since the records were last counted to the end", ["campaign"], ages)


def _counted_at_ms(figures: CampaignFigures) -> int:
    return figures.ledger.campaign.created_at_ms if figures.recount is None else figures.recount.at_ms
