"""The composition root of the API: every part that a request meets, built once from the settings."""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from service.api.complaints import Complaints
from service.api.listeners import Listeners
from service.api.metrics import Metrics
from service.api.noticeboard import Noticeboard
from service.api.spelling import CampaignSpelling
from service.api.stopping import heard_when_stopping
from service.domain.outcomes import IssueOutcome, RedeemOutcome
from service.domain.tickets import TicketBook
from service.gate.batch_size import BatchSize
from service.gate.breaker import Breaker
from service.gate.group_commit import Bounds, GroupCommit, HeldStore
from service.gate.signals import BatchReport, Signals
from service.gate.transition import Transition
from service.gate.waiting_room import WaitingRooms
from service.settings import Settings
from service.store.breaker_state import SharedBreakerState
from service.store.catalogue import Catalogue, KnownCampaign
from service.store.client import connect
from service.store.coupons import CouponStore, IssueRequest, RedeemRequest
from service.store.deactivations import DeactivationStore
from service.store.events import WAIT_MS, EventStore
from service.store.extensions import ExtensionStore
from service.store.heartbeat import Heartbeat
from service.store.imports import ImportStore
from service.store.jobs import JobQueue
from service.store.long_jobs import LongJobs
from service.store.merchants import MerchantStore
from service.store.pipeline import PipelinedScripts, pipelined
from service.store.quotas import QuotaStore
from service.store.recounts import RecountStore
from service.store.scripts import STORE_CLOCK, Scripts
from service.store.vitals import VitalSigns
from service.store.waiting_room import WaitingRoomStore
from service.store.webhooks import WebhookStore

log = structlog.get_logger()

REDEEM: Final = "redeem"
STOP_ATTEMPTS: Final = 10
STOP_TIMEOUT_S: Final = 2.0
MAX_EXPORTS: Final = 4
MAX_UPLOADS: Final = 2
"""How many files one process streams at once, out and in."""
FLUSH_INTERVAL_S: Final = 1.0
"""How far a scrape that another process answers may lag behind this one's tallies."""


class Parts:
    """What one API process is made of. Issue, redeem and the rest have connections of their own.

    `clock` is the scripts' clock fragment, which tests turn.
    """

    def __init__(self, settings: Settings, clock: str = STORE_CLOCK) -> None:
        url, timeout_ms = settings.effective_store_url, settings.group_commit.store_timeout_ms
        issue_client, redeem_client, client = (connect(url, timeout_ms) for _ in range(3))
        waiting_client = connect(url, timeout_ms + WAIT_MS)
        self._clients = (issue_client, redeem_client, client, waiting_client)
        scripts = Scripts(client, clock)
        self.settings = settings
        self.metrics = Metrics()
        code_key = settings.read_code_key()
        self.catalogue = Catalogue(client, scripts, code_key)
        self.coupons = CouponStore(scripts)
        self.deactivations = DeactivationStore(scripts)
        self.quotas = QuotaStore(scripts)
        self.extensions = ExtensionStore(scripts)
        self.events = EventStore(client)
        self.awaited_events = EventStore(waiting_client)
        self.listeners = Listeners()
        self.webhooks = WebhookStore(client, scripts)
        self.merchants = MerchantStore(scripts)
        self.jobs = JobQueue(settings.effective_queue_url)
        self.long_jobs = LongJobs(client, scripts)
        self.scheduler_heartbeat = Heartbeat(client, scripts)
        self.imports = ImportStore(client, scripts)
        self.recounts = RecountStore(client, scripts)
        self.export_places = asyncio.Semaphore(MAX_EXPORTS)
        self.import_places = asyncio.Semaphore(MAX_UPLOADS)
        signals = Signals(lambda: self.issuing.lines(), lambda: self.redeeming.lines())
        replica_id = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        shared, vital_signs = SharedBreakerState(client, clock=clock), VitalSigns(client, self.jobs)
        self.breaker = Breaker(signals, shared, settings.breaker, replica_id, vital_signs.read)
        self.breaker.on_transition += [self.metrics.count_transition, _log_transition]
        self.breaker.on_told_hold.append(self._note_hold)
        self.breaker.on_shadow_refusal.append(
            lambda campaign_id: self.metrics.count_shadow_refusal(self.catalogue.known(campaign_id))
        )

        limits = settings.group_commit
        size = BatchSize(limits.max_batch, settings.serve_only == "issue" or settings.redeem_workers > 0)

        complaints = Complaints()

        def note(report: BatchReport) -> None:
            self.metrics.observe_batch(report)
            complaints.observe(report)

        def observe(report: BatchReport) -> None:
            signals.observe(report)
            note(report)
            if report.verb == REDEEM:
                size.note_redemption()

        bounds = Bounds(limits.max_batch, limits.max_waiting, limits.max_wait_ms / 1000)
        issue_scripts, redeem_scripts = (pipelined(one, timeout_ms, clock) for one in (issue_client, redeem_client))
        one_server = isinstance(issue_scripts, PipelinedScripts)
        issuing = CouponStore(issue_scripts)
        self.issuing: GroupCommit[IssueRequest, IssueOutcome] = GroupCommit(
            "issue",
            issuing.issue,
            bounds,
            observe,
            self.metrics.count_issues,
            held=HeldStore(size, lambda: issuing.issue_held_s),
            one_server=one_server,
        )
        self.redeeming: GroupCommit[RedeemRequest, RedeemOutcome] = GroupCommit(
            REDEEM,
            CouponStore(redeem_scripts).redeem,
            bounds,
            observe,
            self.metrics.count_redemptions,
            one_server=one_server,
        )
        self.tickets = TicketBook(code_key)
        self.waiting_rooms = WaitingRooms(
            WaitingRoomStore(client, pipelined(client, timeout_ms, clock), settings.breaker),
            self.catalogue,
            self.breaker,
            settings.breaker,
            bounds,
            note,
        )
        self.waiting_rooms.on_abandoned.append(self.metrics.count_abandoned)
        self.noticeboard = Noticeboard(self.breaker, self.catalogue, self.waiting_rooms)
        self._spellings: dict[str, CampaignSpelling] = {}

    def spelling(self, known: KnownCampaign) -> CampaignSpelling:
        """How the campaign's coupons are written."""
        spelling = self._spellings.get(known.campaign.id)
        # While its codes are not there the catalogue meets a campaign anew each time, and once more with them.
        if spelling is None or spelling.known is not known:
            spelling = self._spellings[known.campaign.id] = CampaignSpelling(known)
        return spelling

    @property
    def guards_issue(self) -> bool:
        """Whether this process issues. One that does not has no breaker at work, and no vote on when to pause."""
        return self.settings.serve_only != "redeem"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep all parts at work that work by themselves, and close all connections at the end."""
        works = [self._keep_flushing()]
        if self.guards_issue:
            await self.breaker.tick()
            works += [self.breaker.run(), self.waiting_rooms.run(), self.noticeboard.run()]
        tasks = [asyncio.create_task(work) for work in works]
        for task in tasks:
            task.add_done_callback(_stop_if_broken)
        try:
            with self.listeners.leaving_on_signals(), heard_when_stopping(self.noticeboard.close):
                yield
        finally:
            await _end(tasks)
            for client in self._clients:
                await client.aclose()
            self.jobs.close()

    def _note_hold(self) -> None:
        if self.breaker.tells_hold:
            self.metrics.count_hold()
            log.warning("the store owes an answer, nobody is let in")
        else:
            log.warning("nobody waits for the store any more")

    async def _keep_flushing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            self.metrics.flush()


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel until they have ended: before Python 3.12 `asyncio.wait_for`, by which redis-py sends, may swallow it."""
    pending = set(tasks)
    for _ in range(STOP_ATTEMPTS):
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=STOP_TIMEOUT_S / STOP_ATTEMPTS)
        if not pending:
            return


def _stop_if_broken(task: asyncio.Task[None]) -> None:
    """A process whose breaker has died must not go on serving by what it last knew: whoever supervises restarts it."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("the process cannot go on", exc_info=error)
        signal.raise_signal(signal.SIGTERM)


def _log_transition(transition: Transition) -> None:
    log.warning("breaker changed", **transition.facts)
