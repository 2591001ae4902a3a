"""A burst of requests for coupons is begun a bounded number at a time, and a redemption does not wait behind it."""

import asyncio
from pathlib import Path

import pytest

from service.api.fast_lane import LANE
from service.api.protocol import FastLaneProtocol
from service.api.turns import MOST_A_TURN, Reader, Turns
from tests.api.corpus import issue, redeem
from tests.api.exchange import LAST, PATIENCE_S, opened, until
from tests.store.desk import Room

pytestmark = pytest.mark.anyio

CROWD = 3 * MOST_A_TURN
FLOOD_BYTES = 8 * 2**20


class HeldTurns(Turns):
    """Lets nobody begin before the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Reader] = []

    def admits(self, reader: Reader) -> bool:
        self.held.append(reader)
        return False


async def test_a_redemption_is_begun_before_a_crowd_that_was_there_first(
    room: Room, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(room, store_url, tmp_path) as (lane, parts):
        begun: list[str] = []
        for verb, line in (("issue", parts.issuing), ("redeem", parts.redeeming)):

            def enqueue(*wanted: object, verb: str = verb, enqueue: object = line.enqueue) -> None:
                begun.append(verb)
                enqueue(*wanted)  # type: ignore[operator]  # it is the line's own

            monkeypatch.setattr(line, "enqueue", enqueue)
        connections = [await asyncio.open_unix_connection(tmp_path / "lane") for _ in range(CROWD + 1)]
        await until(lambda: len(lane.state.connections) == len(connections))
        asks = [*(issue(f"user-{number}") for number in range(CROWD)), redeem()]
        # None of them is read before all are sent.
        for (_, writer), ask in zip(connections, asks, strict=True):
            writer.write(ask.spelled()[0] + LAST)
        async with asyncio.timeout(PATIENCE_S):
            answers = [await reader.read() for reader, _ in connections]
        for _, writer in connections:
            writer.close()
    assert begun.index("redeem") <= MOST_A_TURN
    assert [b"HTTP/1.1 201 " in answer for answer in answers] == [True] * len(answers)


async def test_whoever_waits_for_his_turn_may_finish_his_request_meanwhile(
    room: Room, store_url: str, tmp_path: Path
) -> None:
    head, body = issue().spelled()[0][:60], issue().spelled()[0][60:]
    async with opened(room, store_url, tmp_path) as (lane, _):
        turns = lane.app_state[LANE].turns = HeldTurns()
        answered = asyncio.create_task(lane.converse([head, body, LAST]))
        await until(lambda: turns.held and len(turns.held[0]._begun) >= len(head + body))  # type: ignore[attr-defined]
        lane.app_state[LANE].turns = Turns()
        (waiting,) = turns.held
        waiting.read_on()
        assert (await answered).startswith(b"HTTP/1.1 201 ")


async def test_whoever_waits_for_his_turn_is_not_taken_for_silent(room: Room, store_url: str, tmp_path: Path) -> None:
    async with opened(room, store_url, tmp_path) as (lane, _):
        turns = lane.app_state[LANE].turns = HeldTurns()
        answered = asyncio.create_task(lane.converse([issue().spelled()[0] + LAST]))
        await until(lambda: turns.held)
        lane.app_state[LANE].turns = Turns()
        (waiting,) = turns.held
        assert isinstance(waiting, FastLaneProtocol)
        for _look in range(3):
            # As its timer does.
            waiting.timeout_keep_alive_handler()
        waiting.read_on()
        assert (await answered).startswith(b"HTTP/1.1 201 ")


async def test_whoever_sends_on_and_on_is_not_listened_to_before_his_turn(
    room: Room, store_url: str, tmp_path: Path
) -> None:
    async with opened(room, store_url, tmp_path) as (lane, _):
        turns = lane.app_state[LANE].turns = HeldTurns()
        _, writer = await asyncio.open_unix_connection(tmp_path / "lane")
        writer.write(issue().spelled()[0])
        await until(lambda: turns.held)
        writer.write(b"x" * FLOOD_BYTES)
        (waiting,) = turns.held
        await until(lambda: not waiting.transport.is_reading())  # type: ignore[attr-defined]
        await asyncio.sleep(0.01)
        assert len(waiting._begun) < FLOOD_BYTES / 4  # type: ignore[attr-defined]
        writer.transport.abort()
        waiting.transport.abort()  # type: ignore[attr-defined]
        await until(lambda: not lane.state.connections)


async def test_whoever_hangs_up_before_his_turn_gets_no_coupon(room: Room, store_url: str, tmp_path: Path) -> None:
    async with opened(room, store_url, tmp_path) as (lane, parts):
        turns = lane.app_state[LANE].turns = HeldTurns()
        assert await lane.converse(issue("bob").spelled(), hang_up=True) == b""
        await until(lambda: not lane.state.connections)
        (gone,) = turns.held
        gone.read_on()
        assert parts.issuing._waiting == 0


async def test_told_to_stop_it_answers_those_who_wait_for_their_turn(
    room: Room, store_url: str, tmp_path: Path
) -> None:
    async with opened(room, store_url, tmp_path) as (lane, _):
        turns = lane.app_state[LANE].turns = HeldTurns()
        answered = asyncio.create_task(lane.converse(issue().spelled()))
        await until(lambda: turns.held)
        for connection in list(lane.state.connections):
            connection.shutdown()
        # His turn comes all the same, and he has had it.
        turns.held[0].read_on()
        answer = await answered
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert b"\r\nconnection: close\r\n" in answer


async def test_a_redemption_needs_no_turn(room: Room, store_url: str, tmp_path: Path) -> None:
    async with opened(room, store_url, tmp_path) as (lane, _):
        lane.app_state[LANE].turns = HeldTurns()
        reader, writer = await asyncio.open_unix_connection(tmp_path / "lane")
        writer.write(redeem().spelled()[0])
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 201 ")
        writer.close()
