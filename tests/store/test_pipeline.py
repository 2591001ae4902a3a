"""Calls that follow each other on one connection get each their own reply, and a lost connection is not the end."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from service.store.client import connect
from service.store.pipeline import PipelinedScripts, pipelined
from service.store.scripts import Scripts, StoreRefused, StoreTimeout, StoreUnreachable
from tests.store.desk import TURNABLE_CLOCK, Room
from tests.store.server import StoreServer, running_store

pytestmark = pytest.mark.anyio

TIMEOUT_MS = 300
LONG_TIMEOUT_MS = 1_000


@pytest.fixture
def own_store() -> Iterator[StoreServer]:
    """A store that the test may stop."""
    with running_store() as server:
        yield server


@asynccontextmanager
async def scripts_on(url: str, timeout_ms: int = 10_000) -> AsyncIterator[Scripts]:
    """Pipelined scripts over a client that is closed in the end, in time."""
    client = connect(url, timeout_ms)
    try:
        yield pipelined(client, timeout_ms, TURNABLE_CLOCK)
    finally:
        async with asyncio.timeout(5):
            await client.aclose()


async def test_many_calls_at_once_share_one_connection_and_get_their_own_replies(room: Room, store_url: str) -> None:
    desks = [await room.open(id=f"spring-{number}", code_prefix=f"QW{number:02}") for number in range(20)]
    async with scripts_on(store_url) as scripts:
        await scripts.run("now", [])
        before = (await room.client.info("stats"))["total_connections_received"]
        keys = [desk.known.state_keys[0] for desk in desks]
        missing = "tg:{nowhere:0}:state"
        replies = await asyncio.gather(*[scripts.run("read_state", [key]) for key in [*keys, missing]])
        after = (await room.client.info("stats"))["total_connections_received"]
    assert replies[-1] is None
    assert None not in replies[:-1]
    assert after == before


async def test_a_script_that_the_store_has_forgotten_is_sent_again(room: Room, store_url: str) -> None:
    async with scripts_on(store_url) as scripts:
        assert await scripts.run("now", []) == room.clock.now_ms
        await room.client.script_flush()
        assert await scripts.run("now", []) == room.clock.now_ms


async def test_what_the_store_refuses_is_said_and_the_next_call_is_served(room: Room, store_url: str) -> None:
    async with scripts_on(store_url) as scripts:
        await room.client.set("tg:{odd:0}:state", "no hash")
        with pytest.raises(StoreRefused, match="WRONGTYPE"):
            await scripts.run("read_state", ["tg:{odd:0}:state"])
        assert await scripts.run("now", []) == room.clock.now_ms


async def test_a_store_that_is_killed_fails_all_calls_at_once_and_is_found_again(own_store: StoreServer) -> None:
    async with scripts_on(own_store.url) as scripts, connect(own_store.url, 1_000) as client:
        await scripts.run("read_state", ["tg:{nowhere:0}:state"])
        os.kill((await client.info("server"))["process_id"], signal.SIGSTOP)
        calls = [asyncio.create_task(scripts.run("read_state", ["tg:{nowhere:0}:state"])) for _ in range(5)]
        await asyncio.sleep(0)
        own_store.kill()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {StoreUnreachable}
        for _ in range(100):
            with pytest.raises(StoreUnreachable):
                await scripts.run("read_state", ["tg:{nowhere:0}:state"])
        own_store.start()
        assert await scripts.run("read_state", ["tg:{nowhere:0}:state"]) is None


async def test_a_call_has_its_whole_time_whenever_the_one_before_was_made(own_store: StoreServer) -> None:
    async with scripts_on(own_store.url, LONG_TIMEOUT_MS) as scripts, connect(own_store.url, 1_000) as client:
        process = (await client.info("server"))["process_id"]
        await scripts.run("read_state", ["tg:{nowhere:0}:state"])
        await asyncio.sleep(0.6 * LONG_TIMEOUT_MS / 1_000)
        os.kill(process, signal.SIGSTOP)
        call = asyncio.create_task(scripts.run("read_state", ["tg:{nowhere:0}:state"]))
        await asyncio.sleep(0.6 * LONG_TIMEOUT_MS / 1_000)
        os.kill(process, signal.SIGCONT)
        assert await call is None


async def test_a_store_that_hangs_times_out_and_is_asked_on_a_new_connection(own_store: StoreServer) -> None:
    async with scripts_on(own_store.url, TIMEOUT_MS) as scripts, connect(own_store.url, 1_000) as client:
        await scripts.run("read_state", ["tg:{nowhere:0}:state"])
        process = (await client.info("server"))["process_id"]
        os.kill(process, signal.SIGSTOP)
        calls = [scripts.run("read_state", ["tg:{nowhere:0}:state"]) for _ in range(5)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        os.kill(process, signal.SIGCONT)
        assert {type(outcome) for outcome in outcomes} == {StoreTimeout}
        assert await scripts.run("read_state", ["tg:{nowhere:0}:state"]) is None
        assert isinstance(scripts, PipelinedScripts)
