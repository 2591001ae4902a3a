"""The fast lane keeps a connection's manners: it closes the idle, finishes what it began, and forgets who has gone."""

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest

from service.api import hot_calls
from service.api.app import fastapi_lane
from service.api.door import Doorkeeper
from service.api.fast_lane import LANE, FastLane
from service.api.parts import Parts
from service.api.plain_request import PlainRequest, PlainRequests
from service.api.protocol import FastLaneProtocol
from service.api.vocabulary import MAX_BODY_BYTES
from service.store import catalogue
from tests.api.caller import Caller
from tests.api.corpus import issue, redeem, redemptions
from tests.api.exchange import LAST, PATIENCE_S, PAUSE_MS, Ask, opened, until
from tests.api.test_metrics import samples
from tests.store.desk import Room

pytestmark = pytest.mark.anyio

ISSUE = issue().spelled()[0]
VARYING = re.compile(rb"(retry-after|x-request-id): [^\r]*")


async def test_issue_and_redeem_are_answered_by_the_fast_lane(
    room: Room, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(room, store_url, tmp_path) as (lane, _):
        # The FastAPI lane goes through these.
        monkeypatch.delattr(hot_calls, "issue")
        monkeypatch.delattr(hot_calls, "redeem")
        for ask in (issue(), redeem()):
            assert (await lane.answer_to(ask)).startswith(b"HTTP/1.1 201 ")


async def test_what_takes_the_slow_lane_is_counted_and_nothing_else(room: Room, store_url: str, tmp_path: Path) -> None:
    async with opened(room, store_url, tmp_path) as (lane, parts):
        asks = issue(), redeem()
        # As a proxy may write it.
        odd = [replace(ask, headers=(*ask.headers, (b"x-empty", b""))) for ask in asks]
        seen = [slow_lane(parts)]
        for ask in (*asks, *odd):
            assert (await lane.answer_to(ask)).startswith(b"HTTP/1.1 201 ")
            seen.append(slow_lane(parts))
    assert seen == [{"issue": n, "redeem": m} for n, m in ((1, 0), (1, 0), (1, 0), (2, 0), (2, 1))]


@pytest.mark.parametrize(
    ("door", "site", "status"),
    [
        (None, b"same-origin", b"201"),
        (None, b"cross-site", b"403"),
        (Doorkeeper(["first-key"]), b"cross-site", b"201"),
    ],
)
async def test_what_a_browser_sends_takes_the_fast_lane_unless_it_is_to_be_refused(
    room: Room, store_url: str, tmp_path: Path, door: Doorkeeper | None, site: bytes, status: bytes
) -> None:
    browser = ((b"authorization", b"Bearer first-key"), (b"origin", b"http://shop"), (b"sec-fetch-site", site))
    async with opened(room, store_url, tmp_path) as (lane, parts):
        lane.app_state[LANE] = FastLane(parts, door)
        before = slow_lane(parts)
        for ask in (issue(), redeem()):
            answer = await lane.answer_to(replace(ask, headers=(*ask.headers, *browser)))
            assert answer.startswith(b"HTTP/1.1 %b " % status)
        assert slow_lane(parts) == before


async def test_a_body_in_single_bytes_has_its_head_read_twice_at_most(
    room: Room, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def read(requests: PlainRequests, data: bytes) -> PlainRequest | None:
        seen.append(len(data))
        return plainly(requests, data)

    plainly = PlainRequests.read
    monkeypatch.setattr(PlainRequests, "read", read)
    body_from = ISSUE.index(b"\r\n\r\n") + 4
    pieces = [ISSUE[:body_from], *(bytes([byte]) for byte in ISSUE[body_from:])]
    # Nothing comes behind the last byte: the answer does not wait for more.
    async with opened(room, store_url, tmp_path, timeout_keep_alive=0.2) as (lane, parts):
        assert (await lane.converse(pieces)).startswith(b"HTTP/1.1 201 ")
        assert slow_lane(parts) == {"issue": 1, "redeem": 0}
    assert len(seen) <= 2


def slow_lane(parts: Parts) -> dict[str, float]:
    return {own["call"]: number for own, number in samples(parts.metrics.exposition().decode(), "slow_lane_total")}


async def test_guessed_codes_are_refused_by_the_fast_lane_once_the_prefixes_of_imported_codes_are_known(
    room: Room, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "UNKNOWN_FOR_S", PATIENCE_S)
    monkeypatch.delattr(hot_calls, "redeem")
    guessed = Ask("POST", redemptions("QWEN-0000-0000-0000-0000"), redeem().pieces, ())
    async with opened(room, store_url, tmp_path) as (lane, parts):
        assert (await lane.answer_to(guessed)).startswith(b"HTTP/1.1 500 ")
        assert await parts.catalogue.find_coupon("QWEN-0000-0000-0000-0000") is None
        assert (await lane.answer_to(guessed)).startswith(b"HTTP/1.1 404 ")


async def test_whoever_hangs_up_while_he_waits_is_taken_out_of_the_line(
    room: Room, store_url: str, tmp_path: Path
) -> None:
    async with opened(room, store_url, tmp_path) as (lane, parts):
        await room.client.client_pause(PAUSE_MS, all=False)
        under_way = asyncio.create_task(lane.converse([issue("ann").spelled()[0] + LAST]))
        await until(lambda: [line.calls and not line.waiting for line in parts.issuing._lines.values()] == [True])
        gone = asyncio.create_task(lane.converse(issue("bob").spelled(), hang_up=True))
        staying = asyncio.create_task(lane.converse([issue("eve").spelled()[0] + LAST]))
        assert await gone == b""
        await until(lambda: sum(len(line.waiting) for line in parts.issuing._lines.values()) == 2)
        await room.client.client_unpause()
        assert b" 201 " in await under_way
        assert b" 201 " in await staying
        assert lane.state.connections == set()
        assert (parts.issuing._lines, parts.issuing._waiting) == ({}, 0)
        async with Caller(fastapi_lane(parts)) as operator:
            assert (await operator.campaign())["counters"]["issued"] == 3


async def test_told_to_stop_it_finishes_what_it_has_begun_and_closes(
    room: Room, store_url: str, tmp_path: Path
) -> None:
    async with opened(room, store_url, tmp_path) as (lane, parts):
        await room.client.client_pause(PAUSE_MS, all=False)
        waiting = asyncio.create_task(lane.converse([ISSUE]))
        await until(lambda: parts.issuing._lines)
        for connection in list(lane.state.connections):
            connection.shutdown()
        await room.client.client_unpause()
        answer = await waiting
    assert answer.startswith(b"HTTP/1.1 201 ")
    assert b"\r\nconnection: close\r\n" in answer


async def test_an_idle_connection_is_closed_and_one_that_waits_is_not(
    room: Room, store_url: str, tmp_path: Path
) -> None:
    async with opened(room, store_url, tmp_path, timeout_keep_alive=0.2) as (lane, _):
        assert (await lane.converse([ISSUE])).startswith(b"HTTP/1.1 201 ")
        await room.client.client_pause(500, all=False)
        # The second request outlasts the timer.
        answered = await lane.converse([LAST.replace(b"connection: close\r\n", b""), *issue("bob").spelled()])
        assert answered.count(b"HTTP/1.1 201 ") == 1


async def test_whoever_never_asks_is_not_waited_for_forever(room: Room, store_url: str, tmp_path: Path) -> None:
    async with opened(room, store_url, tmp_path, timeout_keep_alive=0.05) as (lane, _):
        assert await lane.converse([]) == b""


@pytest.mark.parametrize("slowly", [False, True])
async def test_whoever_falls_silent_in_the_midst_of_a_request_is_cut_off_and_whoever_goes_on_is_not(
    room: Room, store_url: str, tmp_path: Path, slowly: bool
) -> None:
    ask = ISSUE.replace(b"\r\n", b"\r\nx-empty: \r\n", 1) if slowly else ISSUE
    body_from = ask.index(b"\r\n\r\n") + 4
    async with opened(room, store_url, tmp_path) as (lane, _), asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "lane")
        await until(lambda: lane.state.connections)
        (connection,) = lane.state.connections
        assert isinstance(connection, FastLaneProtocol)
        sent = 0
        # The last piece is the next request's first.
        for end in (body_from, body_from + 3, body_from + 4, len(ask), len(ask) + body_from):
            writer.write((ask + ask)[sent:end])
            sent = end
            # What was sent before is read before.
            await lane.answer_to(issue("somebody-else"))
            # As its timer does.
            connection.timeout_keep_alive_handler()
            assert not connection.transport.is_closing()
        connection.flow.pause_reading()
        connection.timeout_keep_alive_handler()
        assert not connection.transport.is_closing()
        connection.flow.resume_reading()
        connection.timeout_keep_alive_handler()
        assert (await reader.read()).count(b"HTTP/1.1 201 ") == 1
        writer.close()


async def test_a_body_that_is_too_long_is_refused_before_its_end_and_no_request_hides_in_the_rest(
    room: Room, store_url: str, tmp_path: Path
) -> None:
    endless = ISSUE.partition(b"\r\n\r\n")[0].replace(b"content-length: 18", b"content-length: 20000") + b"\r\n\r\n"
    async with opened(room, store_url, tmp_path) as (lane, _):
        refused = [endless, b"x" * (MAX_BODY_BYTES + 1), *[b"x"] * 50]
        rest = 20_000 - sum(map(len, refused[1:]))
        answered = await lane.converse([*refused, ISSUE.ljust(rest), ISSUE, LAST])
    assert re.findall(rb"HTTP/1.1 (\d+)", answered) == [b"413", b"201", b"200"]


async def test_with_api_keys_the_fast_lane_has_the_same_door(room: Room, store_url: str, tmp_path: Path) -> None:
    async with opened(room, store_url, tmp_path) as (lane, parts):
        lane.app_state[LANE] = FastLane(parts, Doorkeeper(["first-key"]))
        refused = await lane.answer_to(issue())
        shown = ISSUE.replace(b"\r\n", b"\r\nauthorization: Bearer first-key\r\n", 1)
        admitted = await lane.converse([shown + LAST])
    assert refused.startswith(b"HTTP/1.1 401 ")
    assert b'www-authenticate: Bearer realm="tidegate"' in refused
    assert admitted.startswith(b"HTTP/1.1 201 ")


async def test_while_the_breaker_is_open_whole_requests_and_pieces_get_the_same_refusal(
    room: Room, store_url: str, tmp_path: Path
) -> None:
    async with opened(room, store_url, tmp_path) as (lane, parts):
        async with Caller(fastapi_lane(parts)) as operator:
            assert (await operator.override("forced_open")).status_code == 200
        whole = await lane.converse([ISSUE, ISSUE, LAST])
        pieces = await lane.converse([ISSUE[:40], ISSUE[40:] + ISSUE[:-3], ISSUE[-3:], LAST])
        in_one = await lane.converse([ISSUE + ISSUE + LAST])
        exposed = parts.metrics.exposition().decode()
    answers = [VARYING.sub(b"", answer) for answer in (whole, pieces, in_one)]
    assert answers[0].count(b"HTTP/1.1 503 ") == 2
    assert answers[0] == answers[1] == answers[2]
    assert 'tidegate_issue_total{campaign="spring",outcome="issuance_paused"} 6.0' in exposed
