"""A waiting room is one small hash however long its line is, and it is the same on every server."""

import random
from collections import Counter
from dataclasses import replace
from typing import Final

import pytest

from service.domain.campaign import CampaignStatus
from service.domain.money import Rate
from service.domain.outcomes import CampaignNotRunning
from service.domain.ramp import ALL
from service.domain.waiting_room import GRACE_MS, Call, Line
from service.store.waiting_room import MAX_ROOMS, Turned, WaitingRoomStore
from tests.api.caller import PATIENT
from tests.store.desk import Desk, Room

pytestmark = pytest.mark.anyio

ROOM_KEY: Final = "tg:{spring:0}:room"
MOST_BYTES: Final = 2_048


def rooms(room: Room) -> WaitingRoomStore:
    return WaitingRoomStore(room.client, room.scripts, replace(PATIENT, ramp_ms=1_000))


async def turned(room: Room, desk: Desk, share: int = ALL, wanted: int = 0, **passed: int) -> Turned:
    answer = await rooms(room).turn(desk.known, share, wanted, {int(name[1:]): count for name, count in passed.items()})
    assert isinstance(answer, Turned)
    return answer


async def test_numbers_are_handed_out_and_called_in_order_at_the_campaigns_rate(room: Room) -> None:
    desk = await room.open(issue_rate=Rate(10_000, 1), shards=4)
    assert (await turned(room, desk, share=0, wanted=100)).numbers == range(100)
    opened = (await turned(room, desk)).line
    assert opened == Line(room.clock.now_ms, room.clock.now_ms, False, 10_000, 100, 0, ())
    await room.clock.advance(1_000)
    line = (await turned(room, desk)).line
    assert (line.called, line.calls) == (5, (Call(room.clock.now_ms, 0),))
    await room.clock.advance(1_000)
    assert (await turned(room, desk)).line.called == 15
    await room.clock.advance(3_600_000)
    # Nobody turned the room for an hour: that is not made up for at once.
    assert (await turned(room, desk, c0=3)).line.called <= 15 + 11


async def test_a_room_stays_small_and_is_written_only_when_it_changes(room: Room) -> None:
    desk = await room.open(issue_rate=Rate(10**9, 1))
    for _ in range(40):
        await turned(room, desk, share=0, wanted=250)
    await turned(room, desk)
    for _ in range(2 * GRACE_MS // 500):
        await room.clock.advance(500)
        await turned(room, desk, wanted=250)
    size = await room.client.memory_usage(ROOM_KEY)
    assert size is not None
    assert size < MOST_BYTES
    await turned(room, desk, share=0)
    before = await room.everything()
    for _ in range(5):
        await turned(room, desk, share=0)
    assert (await room.everything())[1] == before[1]


async def test_a_campaign_that_nobody_waits_for_has_no_room(room: Room) -> None:
    desk = await room.open()
    assert (await turned(room, desk, wanted=3)).numbers is None
    await turned(room, desk, share=0)
    assert await room.client.exists(ROOM_KEY) == 0
    stopped = await room.open(id="autumn", code_prefix="FALL", status=CampaignStatus.STOPPED)
    assert await rooms(room).turn(stopped.known, 0, 1, {}) == CampaignNotRunning(CampaignStatus.STOPPED, None)


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_no_more_pass_than_the_ramp_lets_through(room: Room, seed: int) -> None:
    chance = random.Random(seed)
    per_second = chance.choice((1, 7, 100))
    desk = await room.open(issue_rate=Rate(per_second * 1_000, 1))
    store = WaitingRoomStore(room.client, room.scripts, replace(PATIENT, ramp_ms=1, ramp_start_permille=ALL - 1))
    let_through, called_in_all, passes, handed_out = 0.0, 0, set[int](), 0
    line, share, passed = (await turned(room, desk, share=0)).line, 0, Counter[int]()
    for _ in range(50):
        elapsed_ms = chance.choice((0, 1, 250, 250, 1_000, 10_000))
        await room.clock.advance(elapsed_ms)
        share = chance.choice((0, 50, 500, ALL, share, share, share, share))
        answer = await store.turn(desk.known, share, chance.choice((0, 0, 1, 3 * per_second)), passed)
        assert isinstance(answer, Turned)
        before, line = line, answer.line
        if line.opened_at_ms and before.opened_at_ms:
            let_through += per_second * min(elapsed_ms, 1_000) / 1_000 * share / ALL
        if answer.numbers is not None:
            assert list(answer.numbers) == list(range(handed_out, handed_out + len(answer.numbers)))
            handed_out += len(answer.numbers)
        called_in_all += max(0, line.called - before.called)
        # Some of those who were called come, each once, and are counted with the next turn.
        open_calls = [number for call in line.calls for number in range(call.first, line.called)]
        come = [number for number in open_calls if number not in passes and chance.random() < 0.3]
        passes.update(come)
        passed = Counter(max(call.first for call in line.calls if call.first <= number) for number in come)
        assert line.called <= line.next_number == handed_out
        assert called_in_all <= 1.1 * let_through + 1
        assert len(passes) <= let_through + 1, f"seed {seed}"


async def test_a_pause_calls_no_wholly_used_call_again_and_counts_nobody_as_abandoned_who_was_served_before_it(
    room: Room,
) -> None:
    desk = await room.open(issue_rate=Rate(10_000, 1))
    await turned(room, desk, share=0, wanted=15)
    await turned(room, desk)
    for called in (5, 15):
        await room.clock.advance(1_000)
        assert (await turned(room, desk)).line.called == called
    assert (await turned(room, desk, share=0, c0=5, c5=8)).line.called == 5
    abandoned = (await turned(room, desk)).abandoned
    for _ in range(40):
        await room.clock.advance(1_000)
        abandoned += (await turned(room, desk)).abandoned
    assert abandoned == 2


async def test_what_was_claimed_is_known_of_each(room: Room) -> None:
    desk = await room.open()
    await desk.issue("ann", "first")
    asked = [desk.wish("ann", "first"), desk.wish("ann", "second"), desk.wish("bob", "first")]
    batch = [(wish.user_id, wish.user_bucket, wish.key_digest) for wish in asked]
    assert await rooms(room).claimed(desk.known, 0, batch) == [True, False, False]


async def test_only_so_many_rooms_are_in_use_at_once(room: Room) -> None:
    opened = [await rooms(room).open(f"campaign-{number}") for number in range(MAX_ROOMS + 1)]
    assert opened == [True] * MAX_ROOMS + [False]
    assert await rooms(room).open("campaign-0")
    await rooms(room).close("campaign-7")
    assert await rooms(room).open("autumn")
    assert "campaign-7" not in await rooms(room).rooms()
