"""Why: whoever comes back with a ticket is admitted by what this process knows already, without asking the store.

Each process turns every room in use a few times a second and keeps the line as it then was. While people wait in a
line, nobody passes it without a ticket; who passed with one is counted, so that places nobody used are given on.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from service.domain.breaker import BreakerPolicy, State, ramp_begins_in_ms, ramp_of
from service.domain.outcomes import CampaignNotRunning, Overloaded, StoreUnavailable, UnknownCampaign
from service.domain.ramp import Ramp
from service.domain.waiting_room import Called, Line, Standing, ask_again_in_ms, served_in_ms, standing
from service.gate.breaker import Breaker
from service.gate.group_commit import Bounds, GroupCommit
from service.gate.signals import BatchReport
from service.store.catalogue import Catalogue, KnownCampaign
from service.store.scripts import StoreError
from service.store.waiting_room import Claimant, Turned, WaitingRoomStore

TURN_INTERVAL_S: Final = 0.25
UNKNOWN_OPENING_MS: Final = 30_000
"""What is reckoned with while an operator has paused the campaign: nobody knows when he resumes it."""


@dataclass(frozen=True, slots=True)
class Place:
    """A number in the campaign's line."""

    number: int


@dataclass(frozen=True, slots=True)
class StraightIn:
    """Nobody waits: there is nothing to wait for."""


@dataclass(frozen=True, slots=True)
class RoomFull:
    """As many wait as may wait."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A line, and when it was seen by this process's clock."""

    line: Line
    at_s: float


@dataclass(frozen=True, slots=True)
class Due:
    """In how many milliseconds a place is expected to be called, and in how many its holder should ask again."""

    in_ms: int
    ask_again_in_ms: int


TakeOutcome: TypeAlias = Place | StraightIn | RoomFull | CampaignNotRunning | UnknownCampaign


class WaitingRooms:
    """The lines that this process knows of, by campaign. Keep `run` running.

    `lines` is the hot path's look-up: a campaign is in it while its room is in use. `clock` is monotonic, in seconds.
    `on_abandoned` hears how many of a campaign's places were called in vain, each place once in all processes.
    """

    def __init__(
        self,
        store: WaitingRoomStore,
        catalogue: Catalogue,
        breaker: Breaker,
        policy: BreakerPolicy,
        bounds: Bounds,
        observe: Callable[[BatchReport], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._breaker = breaker
        self._policy = policy
        self._clock = clock
        self._passed: dict[str, Counter[int]] = {}
        self._taking: GroupCommit[None, TakeOutcome] = GroupCommit(
            "ticket", self._take, bounds, observe, _count_nothing
        )
        self._claims: GroupCommit[Claimant, bool] = GroupCommit("claim", store.claimed, bounds, observe, _count_nothing)
        self.lines: dict[str, Sight] = {}
        self.on_abandoned: list[Callable[[str, int], None]] = []

    async def take(self, known: KnownCampaign) -> TakeOutcome | Overloaded | StoreUnavailable:
        """Take the next number of the campaign's line, unless everybody may go straight in."""
        return await self._taking.submit(known, 0, None)

    async def is_claimed(
        self, known: KnownCampaign, user_id: str, claim: bytes
    ) -> bool | Overloaded | StoreUnavailable:
        """Tell whether a coupon was issued to the user under that claim."""
        shard, bucket = known.place(user_id)
        return await self._claims.submit(known, shard, (user_id, bucket, claim))

    async def look(self, known: KnownCampaign) -> Sight | None:
        """The campaign's line, from the store if this process does not know it. Raises StoreError."""
        sight = self.lines.get(known.campaign.id)
        if sight is not None:
            return sight
        turned = await self._turn(known, 0)
        return Sight(turned.line, self._clock()) if isinstance(turned, Turned) else None

    def standing(self, sight: Sight, number: int) -> Standing:
        """Where the number stands now."""
        return standing(sight.line, number, self.now_ms(sight))

    def note_pass(self, campaign_id: str, called: Called) -> None:
        """Count one who came when he was called, and got his coupon."""
        self._passed.setdefault(campaign_id, Counter())[called.call] += 1

    def due(self, campaign_id: str, sight: Sight, position: int) -> Due:
        """When the position is served, as far as anybody knows."""
        now_ms = self.now_ms(sight)
        begins_in_ms = max(sight.line.starts_at_ms - now_ms, UNKNOWN_OPENING_MS if sight.line.paused else 0)
        ramp = Ramp(self._policy.ramp_start_permille, self._policy.ramp_ms)
        for record in self._breaker.records_in_force(campaign_id):
            if record.state is not State.CLOSED:
                begins_in_ms = max(begins_in_ms, ramp_begins_in_ms(record, now_ms, self._policy))
                ramp = max(ramp, ramp_of(record, self._policy), key=lambda each: each.length_ms)
        served_ms = served_in_ms(sight.line, position, now_ms, ramp)
        return Due(begins_in_ms + served_ms, ask_again_in_ms(begins_in_ms, served_ms))

    def now_ms(self, sight: Sight) -> int:
        """The store's time, reckoned on from when the line was seen."""
        return sight.line.now_ms + int((self._clock() - sight.at_s) * 1000)

    async def run(self) -> None:
        """Turn the rooms until cancelled."""
        while True:
            with suppress(StoreError):
                await self.tick()
            await asyncio.sleep(TURN_INTERVAL_S)

    async def tick(self) -> None:
        """Turn every room in use once, and forget those that are no longer. Raises StoreError if they are not known.

        A room that cannot be turned, since its server is down or a newer version wrote it, keeps no other waiting.
        """
        in_use = await self._store.rooms()
        for campaign_id in in_use | self.lines.keys():
            with suppress(StoreError):
                await self._turn_one(campaign_id, campaign_id in in_use)

    async def _turn_one(self, campaign_id: str, is_open: bool) -> None:
        known = await self._catalogue.find(campaign_id)
        turned = None if known is None else await self._turn(known, 0)
        if isinstance(turned, Turned) and (turned.numbers is not None or not turned.line.is_over):
            if is_open or await self._store.open(campaign_id):
                self._keep(campaign_id, turned.line)
        else:
            await self._store.close(campaign_id)
            self.lines.pop(campaign_id, None)

    async def _take(self, known: KnownCampaign, _shard: int, batch: Sequence[None]) -> list[TakeOutcome]:
        if known.campaign.id not in self.lines and not await self._finds_room(known):
            return [RoomFull()] * len(batch)
        turned = await self._turn(known, len(batch))
        if turned is None:
            return [UnknownCampaign()] * len(batch)
        if isinstance(turned, CampaignNotRunning):
            return [turned] * len(batch)
        if turned.numbers is None:
            return [StraightIn()] * len(batch)
        self._keep(known.campaign.id, turned.line)
        places: list[TakeOutcome] = [Place(number) for number in turned.numbers]
        return places + [RoomFull()] * (len(batch) - len(places))

    async def _finds_room(self, known: KnownCampaign) -> bool:
        """Whether the campaign needs no room, or has one: else numbers would be handed out that nobody calls."""
        turned = await self._turn(known, 0)
        return not isinstance(turned, Turned) or turned.numbers is None or await self._store.open(known.campaign.id)

    async def _turn(self, known: KnownCampaign, wanted: int) -> Turned | CampaignNotRunning | None:
        campaign_id = known.campaign.id
        # The line is all replicas' together: this one's own trouble must not hold it up.
        share, passed = self._breaker.agreed_share_permille(campaign_id), self._passed.pop(campaign_id, Counter())
        try:
            turned = await self._store.turn(known, share, wanted, passed)
        except StoreError:
            self._passed[campaign_id] = self._passed.get(campaign_id, Counter()) + passed
            raise
        if isinstance(turned, Turned) and turned.abandoned:
            for listener in self.on_abandoned:
                listener(campaign_id, turned.abandoned)
        return turned

    def _keep(self, campaign_id: str, line: Line) -> None:
        # Calls overlap, and an answer that was overtaken must not bring an older line back.
        known = self.lines.get(campaign_id)
        if known is None or line.now_ms >= known.line.now_ms:
            self.lines[campaign_id] = Sight(line, self._clock())


def _count_nothing(_known: KnownCampaign, _outcomes: Sequence[object]) -> None:
    """Tickets are no coupons: the line itself tells how many wait."""
