"""Whoever sends what is no request, or a head without end, is told so in a problem like all others, and not read on."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from service.api.app import fastapi_lane
from service.api.protocol import FastLaneProtocol
from service.api.vocabulary import MAX_HEAD_BYTES
from tests.api.caller import Caller
from tests.api.corpus import COUPONS, issue
from tests.api.exchange import KEY, LAST, PATIENCE_S, PAUSE_MS, Ask, opened, until
from tests.store.desk import Room

pytestmark = pytest.mark.anyio

ASKED = b"GET /livez HTTP/1.1\r\nx-request-id: of-the-caller\r\n"
AGAIN = LAST.replace(b"connection: close\r\n", b"")
CHUNKED = Ask("POST", COUPONS, (), (KEY, (b"transfer-encoding", b"chunked"))).spelled()[0]
LONG = 2 * MAX_HEAD_BYTES


def refusal(answer: bytes) -> tuple[int, str, str]:
    """The status, the `reason` and the id of a problem that is whole and a connection's last."""
    head, _, body = answer.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = dict(each.split(": ", 1) for each in lines)
    problem: dict[str, Any] = json.loads(body)
    assert (headers["content-type"], headers["connection"]) == ("application/problem+json", "close")
    assert problem["type"] == f"/problems/{problem['reason'].replace('_', '-')}"
    assert line.split(" ")[1] == str(problem["status"])
    return problem["status"], problem["reason"], headers["x-request-id"]


@pytest.mark.parametrize(
    "endless",
    [
        ASKED + b"x-long: " + b"x" * LONG,
        ASKED + b"x-short: x\r\n" * (LONG // 12),
        b"GET /" + b"x" * LONG,
        CHUNKED + b"0\r\nx-long: " + b"x" * LONG,
        CHUNKED + b"1\r\n{\r\n0\r\n" + b"x-short: x\r\n" * (LONG // 12),
    ],
    ids=["a header", "headers", "a path", "a trailer", "trailers"],
)
@pytest.mark.parametrize("piece", [LONG // 3, 4 * LONG], ids=["in pieces", "at once"])
async def test_a_head_without_end_is_refused_and_its_connection_closed(
    room: Room, store_url: str, tmp_path: Path, endless: bytes, piece: int
) -> None:
    async with opened(room, store_url, tmp_path) as (lane, _):
        answered = await lane.converse([endless[at : at + piece] for at in range(0, len(endless), piece)])
    assert refusal(answered)[:2] == (431, "head_too_large")


async def test_a_long_head_is_served_and_so_are_several_in_one_piece_and_a_long_chunk(
    room: Room, store_url: str, tmp_path: Path
) -> None:
    heads = [AGAIN.replace(b"\r\n\r\n", b"\r\nx-long: %b\r\n\r\n" % (b"x" * length)) for length in (60_000, 30_000)]
    upload = Ask("POST", "/v1/campaigns/spring/imports", (), ((b"transfer-encoding", b"chunked"),)).spelled()[0]
    pieces = [heads[0], heads[1] * 4 + upload, b"%x\r\n" % LONG, b"x" * LONG, b"\r\n0\r\n\r\n", LAST]
    async with opened(room, store_url, tmp_path) as (lane, _):
        answered = await lane.converse(pieces)
    assert re.findall(rb"HTTP/1.1 (\d+)", answered) == [*[b"200"] * 5, b"409", b"200"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", False),
        (b"GET\r\n\r\n", False),
        (ASKED + b"x-other: x\r\nno header\r\n\r\n", True),
        (ASKED + b"transfer-encoding: chunked\r\n\r\nno chunk\r\n", True),
    ],
)
async def test_what_is_no_http_is_a_problem_with_an_id(
    room: Room, store_url: str, tmp_path: Path, sent: bytes, kept: bool
) -> None:
    async with opened(room, store_url, tmp_path) as (lane, _):
        status, reason, request_id = refusal(await lane.converse([sent]))
    assert (status, reason) == (400, "malformed_http")
    assert request_id
    assert (request_id == "of-the-caller") is kept


@pytest.mark.parametrize("told_to_stop", [False, True])
async def test_whoever_sends_on_after_a_refusal_is_not_read_and_cut_off_at_last(
    room: Room, store_url: str, tmp_path: Path, told_to_stop: bool
) -> None:
    async with opened(room, store_url, tmp_path) as (lane, parts), asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "lane")
        await until(lambda: lane.state.connections)
        (connection,) = lane.state.connections
        assert isinstance(connection, FastLaneProtocol)
        writer.write(CHUNKED + b"1\r\n{\r\nno chunk\r\n")
        assert refusal(await reader.read())[:2] == (400, "malformed_http")
        for _ in range(2):
            assert not connection.transport.is_closing()
            writer.write(issue().spelled()[0])
            # What was sent before is read before.
            await lane.answer_to(issue("somebody-else"))
            # As its timer does.
            connection.timeout_keep_alive_handler()
            if told_to_stop:
                connection.shutdown()
                break
        assert connection.transport.is_closing()
        writer.close()
        async with Caller(fastapi_lane(parts)) as operator:
            assert (await operator.campaign())["counters"]["issued"] == 1


async def test_no_refusal_is_taken_for_the_answer_to_the_request_before_it(
    room: Room, store_url: str, tmp_path: Path
) -> None:
    ask = issue().spelled()[0]
    async with opened(room, store_url, tmp_path) as (lane, _):
        await room.client.client_pause(PAUSE_MS, all=False)
        for before in (ask, ask.replace(b"\r\n", b"\r\nx-empty: \r\n", 1), ask + AGAIN):
            assert await lane.converse([before + b"no HTTP\r\n\r\n"]) == b""
        await room.client.client_unpause()
