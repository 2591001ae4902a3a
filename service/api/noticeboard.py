"""What the public is told about issuance, kept up to date so that whoever reads it asks nobody else.

The breaker tells of its changes at once. The campaigns that somebody reads about are looked at a few times a second,
all in one store call, however many read.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from service.api.refusals import PUBLIC_MESSAGE
from service.domain.breaker import OPERATOR, Issuance
from service.domain.campaign import Campaign, CampaignStatus, scheduled_status
from service.domain.languages import preferred
from service.gate.breaker import Breaker
from service.gate.circuits import IssuanceStatus
from service.gate.waiting_room import UNKNOWN_OPENING_MS, WaitingRooms
from service.store.catalogue import Catalogue
from service.store.scripts import StoreError

LOOK_INTERVAL_S: Final = 0.25
MAX_WATCHED: Final = 256
"""Campaigns that are kept up to date at once; beyond that the one that nobody has read about for longest is dropped."""
FORGOTTEN_AFTER_S: Final = 60.0

WORDS: Final[dict[str, dict[str, str]]] = {
    "issuing": {"en": "Coupons are being issued.", "zh": "正在发放优惠券。"},
    "paused": {
        "en": PUBLIC_MESSAGE,
        "zh": "参与人数过多，发放暂时停止。您的机会仍然保留，请稍后再来。您已领取的优惠券继续有效，现在即可使用。",
    },
    "recovering": {
        "en": "Issuing has begun again, for a growing number of people. Nothing is lost: your turn comes in a moment. "
        "Coupons that you hold stay valid and can be used now.",
        "zh": "优惠券正在逐步恢复发放。您的机会仍然保留，很快就轮到您。您已领取的优惠券继续有效，现在即可使用。",
    },
    "not_running": {
        "en": "This campaign issues no coupons now. Coupons that you hold can be used as long as they are valid.",
        "zh": "本活动目前不发放优惠券。您已领取的优惠券在有效期内可以照常使用。",
    },
}
"""What is said where a campaign has no words of its own."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What is told at one moment. `retry_after_s` is 0 while issuing; `mark` differs whenever the rest has changed."""

    issuance: Issuance
    reason: str
    since_ms: int
    retry_after_s: int
    mark: str
    words: Mapping[str, str]

    def message(self, accept_language: str) -> tuple[str, str]:
        """The language that suits the reader best, and what he is told in it."""
        language = preferred(accept_language, list(self.words))
        return language, self.words[language]


@dataclass(slots=True)
class _Watched:
    campaign: Campaign
    read_at_s: float
    mark: str


class Noticeboard:
    """What the public may know, overall and of each campaign. Keep `run` running.

    `changed` is set once when something has, and is then another event: whoever waits takes it before he reads.
    `listeners` counts those who wait for it, and `closing` sends them home.
    """

    def __init__(self, breaker: Breaker, catalogue: Catalogue, waiting_rooms: WaitingRooms) -> None:
        self._breaker = breaker
        self._catalogue = catalogue
        self._waiting_rooms = waiting_rooms
        self._watched: dict[str, _Watched] = {}
        self._looking: dict[str, asyncio.Task[Campaign | None]] = {}
        self.listeners = 0
        self.closing = False
        self.changed = asyncio.Event()
        breaker.on_transition.append(self._tell)
        breaker.on_own_transition.append(self._tell)
        breaker.on_told_hold.append(self._tell)

    def overall(self) -> Notice:
        """What holds for all campaigns."""
        return _notice(self._breaker.status())

    async def of(self, campaign_id: str) -> Notice | None:
        """What holds for one campaign; None if there is none. Only the first reader waits for the store.

        Raises StoreError if that does not answer him.
        """
        watched = self._watched.get(campaign_id)
        if watched is not None:
            watched.read_at_s = time.monotonic()
            return self._of(watched.campaign)
        campaign = await self._look_once(campaign_id)
        return None if campaign is None else self._of(campaign)

    def close(self) -> None:
        """Send all listeners home: the process is about to stop."""
        self.closing = True
        self._tell()

    async def run(self) -> None:
        """Look at what is read about until cancelled."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL_S)
            with suppress(StoreError):
                await self.look()

    async def look(self) -> None:
        """Look once at all campaigns that somebody has read about lately. Raises StoreError."""
        oldest_s = time.monotonic() - FORGOTTEN_AFTER_S
        self._watched = {name: watched for name, watched in self._watched.items() if watched.read_at_s > oldest_s}
        if not self._watched:
            return
        for campaign in await self._catalogue.load_each(list(self._watched)):
            if (watched := self._watched.get(campaign.id)) is not None:
                watched.campaign = campaign
        marks = {name: self._of(watched.campaign).mark for name, watched in self._watched.items()}
        changed = [name for name, mark in marks.items() if mark != self._watched[name].mark]
        for name in changed:
            self._watched[name].mark = marks[name]
        if changed:
            self._tell()

    def _of(self, campaign: Campaign) -> Notice:
        overall = _notice(self._breaker.status(campaign.id))
        # The scripts go by the window at once, and a worker notes it some time later.
        status = scheduled_status(campaign, self._breaker.store_now_ms)
        since_ms, mark = _since_ms(campaign, status), f"{overall.mark}.{campaign.version}.{status}"
        match status:
            case CampaignStatus.PAUSED:
                retry_after_s = max(overall.retry_after_s, UNKNOWN_OPENING_MS // 1000)
                words = _own_words(campaign, Issuance.PAUSED)
                return Notice(Issuance.PAUSED, OPERATOR, since_ms, retry_after_s, mark, words)
            case CampaignStatus.RUNNING:
                return self._running(campaign, overall, mark)
            case _:
                return Notice(Issuance.PAUSED, status, since_ms, 0, mark, WORDS["not_running"])

    def _running(self, campaign: Campaign, overall: Notice, mark: str) -> Notice:
        sight = self._waiting_rooms.lines.get(campaign.id)
        if overall.issuance is not Issuance.ISSUING or sight is None or not sight.line.waiting:
            words = _own_words(campaign, overall.issuance)
            return Notice(overall.issuance, overall.reason, overall.since_ms, overall.retry_after_s, mark, words)
        due = self._waiting_rooms.due(campaign.id, sight, sight.line.waiting + 1)
        since_ms = sight.line.opened_at_ms or sight.line.now_ms
        words = _own_words(campaign, Issuance.RECOVERING)
        retry_after_s = max(1, due.in_ms // 1000)
        return Notice(Issuance.RECOVERING, "waiting_room", since_ms, retry_after_s, f"{mark}.line", words)

    async def _look_once(self, campaign_id: str) -> Campaign | None:
        task = self._looking.get(campaign_id)
        if task is None:
            task = self._looking[campaign_id] = asyncio.create_task(self._look_up(campaign_id))
            task.add_done_callback(lambda _task: self._looking.pop(campaign_id))
        return await asyncio.shield(task)

    async def _look_up(self, campaign_id: str) -> Campaign | None:
        # The catalogue remembers for a while what does not exist, so that a stampede on a wrong id stays cheap.
        campaign = await self._catalogue.load(campaign_id) if await self._catalogue.find(campaign_id) else None
        if campaign is not None:
            if len(self._watched) >= MAX_WATCHED:
                del self._watched[min(self._watched, key=lambda name: self._watched[name].read_at_s)]
            self._watched[campaign_id] = _Watched(campaign, time.monotonic(), self._of(campaign).mark)
        return campaign

    def _tell(self, *_change: object) -> None:
        changed, self.changed = self.changed, asyncio.Event()
        changed.set()


def _notice(status: IssuanceStatus) -> Notice:
    mark = f"{status.epoch}.{status.issuance}{'.hold' if status.is_hold else ''}"
    words = WORDS[status.issuance]
    return Notice(status.issuance, status.reason, status.since_ms, status.retry_after_s, mark, words)


def _since_ms(campaign: Campaign, status: CampaignStatus) -> int:
    if status is CampaignStatus.ENDED and campaign.issue_window is not None:
        return campaign.issue_window.ends_at_ms
    return campaign.status_since_ms or campaign.created_at_ms


def _own_words(campaign: Campaign, issuance: Issuance) -> Mapping[str, str]:
    """The campaign's words where it pauses, and ours for the languages that it has none for."""
    if issuance is Issuance.ISSUING:
        return WORDS[issuance]
    ours = {tag: text for tag, text in WORDS[issuance].items() if tag not in campaign.messages}
    return {**campaign.messages, **ours}
