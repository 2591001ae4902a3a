"""The line is called at the ramp's pace and in order, whoever stays away, whatever happens meanwhile.

The histories are lived against the real scripts in a real store, by two processes, on one clock that the test turns.
"""

import asyncio
import heapq
import math
import random
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.breaker import Mode, State
from service.domain.campaign import CampaignStatus
from service.domain.money import Rate
from service.domain.outcomes import CampaignNotRunning
from service.domain.ramp import Ramp
from service.domain.waiting_room import COUNTING_MS, GRACE_MS, Called, GivenOn, InLine, Line, served_in_ms
from service.gate.breaker import Breaker
from service.gate.group_commit import Bounds
from service.gate.signals import Signals
from service.gate.waiting_room import Place, RoomFull, StraightIn, WaitingRooms
from service.store import keys
from service.store.breaker_state import SharedBreakerState
from service.store.pipeline import pipelined
from service.store.waiting_room import MAX_ROOMS, WaitingRoomStore
from tests.api.caller import PATIENT
from tests.store.desk import TURNABLE_CLOCK, Desk, Room

pytestmark = pytest.mark.anyio

STEP_MS: Final = 500
PER_SECOND: Final = 500
POLICY: Final = replace(PATIENT, minimum_pause_ms=3_000, ramp_ms=20_000)
PATIENCE_MS: Final = 30_000
RAMP: Final = Ramp(POLICY.ramp_start_permille, POLICY.ramp_ms)
MOST_WAITING: Final = 25_000


class Tide:
    """Two processes over one store, and the clock of them all."""

    def __init__(self, room: Room, desk: Desk) -> None:
        self.room = room
        self.desk = desk
        self.began_ms = room.clock.now_ms
        self.breakers = [self._breaker(name) for name in ("one", "other")]
        self.processes = [self._rooms(breaker) for breaker in self.breakers]

    @property
    def elapsed_ms(self) -> int:
        return self.room.clock.now_ms - self.began_ms

    async def step(self) -> None:
        """Half a second passes."""
        await self.room.clock.advance(STEP_MS)
        for breaker, rooms in zip(self.breakers, self.processes, strict=True):
            await breaker.tick()
            await rooms.tick()

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 1000 / STEP_MS)):
            await self.step()

    async def pause(self) -> None:
        await self.breakers[0].override(Mode.FORCED_OPEN, "mei", "a drill", None)
        await self.step()

    async def reopen(self) -> None:
        """From now on the breaker is half open."""
        await self.breakers[0].override(Mode.AUTO, "mei", "a drill", None)
        while self.breakers[1].record.state is State.OPEN:
            await self.step()

    async def take(self, number: int = 1, process: int = 0) -> list[int]:
        outcomes = await asyncio.gather(*(self.processes[process].take(self.desk.known) for _ in range(number)))
        return [outcome.number for outcome in outcomes if isinstance(outcome, Place)]

    async def standing(self, number: int, process: int = 0) -> InLine | Called | GivenOn:
        sight = await self.processes[process].look(self.desk.known)
        assert sight is not None
        return self.processes[process].standing(sight, number)

    async def come(self, number: int, process: int = 0) -> bool:
        """Whether the number passes now."""
        standing = await self.standing(number, process)
        if isinstance(standing, Called):
            self.processes[process].note_pass("spring", standing)
        return isinstance(standing, Called)

    def _breaker(self, name: str) -> Breaker:
        shared = SharedBreakerState(self.room.client, clock=TURNABLE_CLOCK)
        return Breaker(Signals(), shared, POLICY, name, clock=self._now_s, draw=lambda: 0.5)

    def _rooms(self, breaker: Breaker) -> WaitingRooms:
        store = WaitingRoomStore(
            self.room.client,
            pipelined(self.room.client, PATIENCE_MS, TURNABLE_CLOCK),
            POLICY,
            most_waiting=MOST_WAITING,
        )
        return WaitingRooms(
            store,
            self.room.catalogue,
            breaker,
            POLICY,
            Bounds(256, MOST_WAITING, 30.0),
            lambda _report: None,
            self._now_s,
        )

    def _now_s(self) -> float:
        return self.elapsed_ms / 1000


@pytest.fixture
async def tide(room: Room) -> Tide:
    tide = Tide(room, await room.open(issue_rate=Rate(PER_SECOND * 1000, 1)))
    for breaker in tide.breakers:
        await breaker.tick()
    return tide


def ramp_places(from_ms: int, to_ms: int) -> float:
    """How many places the ramp has between two moments after its beginning, summed by hand."""
    start = POLICY.ramp_start_permille / 1000
    shares = [min(1.0, start + (1 - start) * at_ms / POLICY.ramp_ms) for at_ms in range(from_ms, to_ms, 10)]
    return PER_SECOND * 0.01 * sum(shares)


@dataclass
class Crowd:
    """People who took a ticket: some forget it, the others ask when they are told to and come when they are called."""

    chance: random.Random
    abandons: float = 0.0
    arrived_ms: dict[int, int] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)
    asks: list[tuple[int, int, int]] = field(default_factory=list)

    def join(self, numbers: list[int], now_ms: int) -> None:
        """So many take a ticket within a second."""
        for number in numbers:
            if self.chance.random() >= self.abandons:
                heapq.heappush(self.asks, (now_ms + self.chance.randrange(1_000), number, self.chance.randrange(2)))

    def live(self, tide: Tide) -> None:
        """All whose time it is ask where they stand, at either process."""
        while self.asks and self.asks[0][0] <= tide.elapsed_ms:
            due_ms, number, process = heapq.heappop(self.asks)
            rooms = tide.processes[process]
            sight = rooms.lines["spring"]
            match rooms.standing(sight, number):
                case Called() as called:
                    rooms.note_pass("spring", called)
                    self.arrived_ms[number] = tide.elapsed_ms
                case InLine(position):
                    wait_s = max(1, math.ceil(rooms.due("spring", sight, position).ask_again_in_ms / 1_000))
                    heapq.heappush(self.asks, (due_ms + 1_000 * wait_s, number, process))
                case GivenOn():
                    self.lost.append(number)

    def arrivals(self, from_ms: int, to_ms: int) -> int:
        """How many came after the one moment and not after the other."""
        # Time only goes on, so they stand in the order in which they came.
        moments = list(self.arrived_ms.values())
        return bisect_right(moments, to_ms) - bisect_right(moments, from_ms)


async def test_twenty_thousand_return_at_the_ramps_pace(tide: Tide) -> None:
    crowd = Crowd(random.Random(20_000), abandons=0.1)
    await tide.pause()
    for process in (0, 1):
        crowd.join(await tide.take(10_000, process), tide.elapsed_ms)
    expected = {number for _, number, _ in crowd.asks}
    await tide.reopen()
    reopened_ms = tide.elapsed_ms
    newcomers = await tide.take(500)
    crowd.join(newcomers, tide.elapsed_ms)
    all_called_ms = 0
    while crowd.asks:
        await tide.step()
        crowd.live(tide)
        if not all_called_ms and tide.processes[0].lines["spring"].line.called >= 20_000:
            all_called_ms = tide.elapsed_ms

    # Nobody who asked when he was told to has lost his place, and nobody was overtaken by one who came later.
    assert crowd.lost == []
    assert expected <= crowd.arrived_ms.keys()
    assert min(came_ms for number, came_ms in crowd.arrived_ms.items() if number in newcomers) >= all_called_ms > 0
    for second in range((tide.elapsed_ms - reopened_ms) // 1_000):
        until_ms = 1_000 * (second + 1)
        # Never more than the ramp let through since it began, and in no moment a herd.
        assert crowd.arrivals(-1, reopened_ms + until_ms) <= ramp_places(0, until_ms) + 1
        since_ms = max(0, until_ms - 2_000)
        in_two_seconds = crowd.arrivals(reopened_ms + since_ms, reopened_ms + until_ms)
        assert in_two_seconds <= 1.1 * ramp_places(since_ms, until_ms)
    # What nobody used was given on, so that all were called before the ramp alone would have reached them.
    assert ramp_places(0, all_called_ms - reopened_ms) < 19_800


async def test_a_pause_in_the_middle_takes_the_open_calls_back_and_nobody_loses_his_place(tide: Tide) -> None:
    crowd = Crowd(random.Random(2))
    await tide.pause()
    crowd.join(await tide.take(1_500), tide.elapsed_ms)
    await tide.reopen()
    for _ in range(5_000 // STEP_MS):
        await tide.step()
        crowd.live(tide)
    before = len(crowd.arrived_ms)
    assert 0 < before < 1_500
    await tide.pause()
    await tide.pass_time(GRACE_MS / 1_000 + 1)
    assert isinstance(await tide.standing(1_499), InLine)
    assert len(crowd.arrived_ms) == before
    await tide.reopen()
    reopened_ms = tide.elapsed_ms
    while crowd.asks:
        await tide.step()
        crowd.live(tide)
        assert crowd.arrivals(reopened_ms, tide.elapsed_ms) <= ramp_places(0, tide.elapsed_ms - reopened_ms) + 1
    assert (len(crowd.arrived_ms), crowd.lost) == (1_500, [])


async def test_an_operators_pause_opens_by_the_ramp_too(tide: Tide) -> None:
    await tide.desk.change(status=CampaignStatus.PAUSED)
    numbers = await tide.take(2_000, process=1)
    assert numbers == list(range(2_000))
    await tide.pass_time(10)
    assert isinstance(await tide.standing(0), InLine)
    await tide.desk.change(status=CampaignStatus.RUNNING)
    await tide.step()
    opened_ms = tide.elapsed_ms
    for _ in range(20):
        await tide.step()
        called = tide.processes[0].lines["spring"].line.called
        pace = ramp_places(0, tide.elapsed_ms - opened_ms)
        assert pace - PER_SECOND * STEP_MS / 1_000 <= called <= pace + 1


async def test_a_place_that_nobody_uses_goes_to_the_next_after_its_grace(tide: Tide) -> None:
    await tide.pause()
    await tide.take(15_000)
    await tide.reopen()
    await tide.pass_time(20)
    at_the_ramp_s_end = tide.processes[0].lines["spring"].line.called
    await tide.pass_time(1)
    assert tide.processes[0].lines["spring"].line.called - at_the_ramp_s_end == pytest.approx(PER_SECOND, rel=0.01)
    first = await tide.standing(0)
    assert isinstance(first, Called)
    await tide.pass_time(GRACE_MS / 1_000 - 20)
    assert isinstance(await tide.standing(0), GivenOn)
    assert not await tide.come(0)
    await tide.pass_time(COUNTING_MS / 1_000 + 1)
    before = tide.processes[0].lines["spring"].line.called
    await tide.pass_time(1)
    assert tide.processes[0].lines["spring"].line.called - before == pytest.approx(1.1 * PER_SECOND, rel=0.01)


async def test_places_that_were_used_are_not_given_on(tide: Tide) -> None:
    await tide.pause()
    numbers = deque(await tide.take(24_000))
    await tide.reopen()
    for _ in range((GRACE_MS + 22_000) // STEP_MS):
        await tide.step()
        while numbers and await tide.come(numbers[0], process=numbers[0] % 2):
            numbers.popleft()
    before = tide.processes[0].lines["spring"].line.called
    await tide.pass_time(1)
    # What the two processes counted since their last turn is all that may be missing.
    assert tide.processes[0].lines["spring"].line.called - before == pytest.approx(PER_SECOND, rel=0.01)


async def test_whoever_finds_nobody_waiting_goes_straight_in_and_leaves_no_trace(tide: Tide, room: Room) -> None:
    before = await room.everything()
    assert await tide.processes[0].take(tide.desk.known) == StraightIn()
    assert await room.everything() == before
    await tide.pass_time(1)
    assert tide.processes[0].lines == {}


async def test_while_issuance_recovers_and_nobody_waits_a_ticket_is_called_at_once(tide: Tide) -> None:
    await tide.pause()
    await tide.take()
    await tide.reopen()
    await tide.pass_time(5)
    (late,) = await tide.take(process=1)
    assert isinstance(await tide.standing(late, process=1), Called)
    sight = tide.processes[1].lines["spring"]
    assert not sight.line.waiting


async def test_while_one_campaign_recovers_alone_a_ticket_of_it_is_a_place_and_its_neighbour_has_no_line(
    tide: Tide, room: Room
) -> None:
    neighbour = await room.open(id="autumn", code_prefix="FALL")
    for mode in (Mode.FORCED_OPEN, Mode.AUTO):
        await tide.breakers[0].override(mode, "mei", "a drill", None, "spring")
        await tide.pass_time(POLICY.minimum_pause_ms / 1_000)
    assert {breaker.campaigns["spring"].record.state for breaker in tide.breakers} == {State.HALF_OPEN}
    assert await tide.take() == [0]
    assert await tide.take(process=1) == [1]
    assert await tide.processes[0].take(neighbour.known) == StraightIn()


async def test_a_room_is_closed_in_every_process_once_all_were_called_and_had_their_time(
    tide: Tide, room: Room
) -> None:
    await tide.pause()
    await tide.take(10)
    await tide.pass_time(1)
    assert [list(process.lines) for process in tide.processes] == [["spring"], ["spring"]]
    await tide.reopen()
    await tide.pass_time(POLICY.ramp_ms / 1_000 + GRACE_MS / 1_000 + 3)
    assert [process.lines for process in tide.processes] == [{}, {}]
    assert await room.client.smembers(keys.ROOMS) == set()
    await tide.pause()
    assert await tide.take() == [10]


@pytest.mark.parametrize(("broken", "sound"), [("spring", "autumn"), ("autumn", "spring")])
async def test_a_room_that_cannot_be_turned_keeps_no_other_from_its_turn(
    tide: Tide, room: Room, broken: str, sound: str
) -> None:
    desks = {"spring": tide.desk, "autumn": await room.open(id="autumn", code_prefix="FALL")}
    await tide.pause()
    for desk in desks.values():
        assert await tide.processes[0].take(desk.known) == Place(0)
    await room.client.set(keys.state_key(broken, 0), "what no version has ever written")
    await tide.reopen()
    await tide.pass_time(1)
    assert [process.lines[sound].line.called for process in tide.processes] == [1, 1]


async def test_whoever_finds_all_rooms_in_use_uses_up_no_place(tide: Tide, room: Room) -> None:
    await tide.pause()
    await room.client.sadd(keys.ROOMS, *(f"campaign-{number}" for number in range(MAX_ROOMS)))
    refused = [await tide.processes[0].take(tide.desk.known) for _ in range(5)]
    assert refused == [RoomFull()] * 5
    await room.client.srem(keys.ROOMS, "campaign-7")
    assert await tide.take() == [0]


async def test_a_full_room_says_so_and_keeps_its_order(room: Room, tide: Tide) -> None:
    del room
    await tide.pause()
    assert await tide.take(20_000) == list(range(20_000))
    assert len(await tide.take(6_000, process=1)) == MOST_WAITING - 20_000
    assert await tide.processes[0].take(tide.desk.known) == RoomFull()


async def test_a_campaign_that_is_over_has_no_line(tide: Tide) -> None:
    await tide.desk.change(status=CampaignStatus.STOPPED)
    assert await tide.processes[0].take(tide.desk.known) == CampaignNotRunning(CampaignStatus.STOPPED, None)


async def test_an_answer_that_is_lost_hands_out_no_place_twice(tide: Tide) -> None:
    await tide.pause()
    first = await tide.take(3)
    again = await asyncio.gather(*(tide.processes[at % 2].take(tide.desk.known) for at in range(200)))
    numbers = first + [place.number for place in again if isinstance(place, Place)]
    assert sorted(numbers) == list(range(203))


@given(
    position=st.integers(1, 10**7),
    per_second_milli=st.integers(1, 10**9),
    elapsed_ms=st.none() | st.integers(0, 10**6),
)
def test_what_a_place_is_told_is_when_the_ramp_reaches_it(
    position: int, per_second_milli: int, elapsed_ms: int | None
) -> None:
    now_ms = 10**12
    opened_at_ms = None if elapsed_ms is None else now_ms - elapsed_ms
    line = Line(now_ms, opened_at_ms, False, per_second_milli, position, 0, ())
    due_ms = served_in_ms(line, position, now_ms, RAMP)
    full_ms = position * 10**6 / per_second_milli
    assert full_ms - 1 <= due_ms <= full_ms + POLICY.ramp_ms + 1
    if position > 1:
        assert served_in_ms(line, position - 1, now_ms, RAMP) <= due_ms
