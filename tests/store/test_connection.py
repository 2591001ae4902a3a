"""Scripts reach the store once or not at all, and what went wrong on the way is told apart."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.domain.outcomes import Issued, Replayed
from service.store import keys
from service.store.breaker_state import SharedBreakerState
from service.store.catalogue import Catalogue
from service.store.client import (
    CLUSTER_SCHEME,
    SCHEMA_VERSION,
    SENTINEL_SCHEME,
    SchemaTooNew,
    check_schema,
    connect,
    without_credentials,
)
from service.store.coupons import CouponStore
from service.store.scripts import Scripts, StoreRefused, StoreTimeout, StoreUnreachable
from tests.store.cluster import ClusterServer
from tests.store.desk import SECRET, TURNABLE_CLOCK, Room, a_campaign

pytestmark = pytest.mark.anyio

BRIEFLY_MS = 200
PATIENCE_S = 5


@asynccontextmanager
async def road_that_loses_a_scripts_answer(url: str) -> AsyncIterator[str]:
    """A way to the store for one connection, on which every request arrives but no answer to a script comes back."""
    at_its_end = asyncio.Event()

    async def answers(store: asyncio.StreamReader, caller: asyncio.StreamWriter) -> None:
        while answer := await store.read(65_536):
            caller.write(answer)

    async def carry(reader: asyncio.StreamReader, caller: asyncio.StreamWriter) -> None:
        from_store, store = await asyncio.open_unix_connection(url.removeprefix("unix://"))
        coming_back = asyncio.create_task(answers(from_store, caller))
        while request := await reader.read(65_536):
            if b"EVALSHA" in request:
                coming_back.cancel()
            store.write(request)
        for end in (store, caller):
            end.close()
            await end.wait_closed()
        at_its_end.set()

    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        road = Path(folder) / "road"
        async with await asyncio.start_unix_server(carry, road):
            yield f"unix://{road}"
            await asyncio.wait_for(at_its_end.wait(), PATIENCE_S)


async def test_a_script_whose_answer_is_lost_ran_once_and_its_repeat_finds_the_coupon(
    room: Room, store_url: str
) -> None:
    desk = await room.open()
    await desk.issue("bob")
    async with road_that_loses_a_scripts_answer(store_url) as road:
        client = connect(road, timeout_ms=BRIEFLY_MS)
        await room.client.config_resetstat()
        with pytest.raises(StoreTimeout):
            await CouponStore(Scripts(client, TURNABLE_CLOCK)).issue(desk.known, 0, [desk.wish("ann", "first")])
        await client.aclose()
    statistics = await room.client.info("commandstats")
    assert statistics["cmdstat_evalsha"]["calls"] == 1
    assert isinstance(await desk.issue("ann", "first"), Replayed)
    assert (await desk.counters()).issued == 2


async def test_no_store_at_all_is_unreachable(tmp_path: Path) -> None:
    client = connect(f"unix://{tmp_path / 'nobody'}", timeout_ms=BRIEFLY_MS)
    catalogue = Catalogue(client, Scripts(client), SECRET)
    with pytest.raises(StoreUnreachable):
        await catalogue.load("spring")
    with pytest.raises(StoreUnreachable):
        await catalogue.register(a_campaign())
    await client.aclose()


async def test_a_sentinel_without_a_port_is_asked_on_the_usual_one() -> None:
    client = connect(f"{SENTINEL_SCHEME}127.9.9.9,[::1]:9/main", timeout_ms=BRIEFLY_MS)
    with pytest.raises(StoreUnreachable, match=r"127\.9\.9\.9,port=26379\b.*::1,port=9\b"):
        await check_schema(client)
    await client.aclose()


async def test_a_cluster_that_is_gone_is_unreachable_however_often_it_is_asked(tmp_path: Path) -> None:
    server = ClusterServer(tmp_path)
    client = connect(f"{CLUSTER_SCHEME}{server.address}", timeout_ms=BRIEFLY_MS)
    await check_schema(client)
    server.kill()
    for _ in range(2):
        with pytest.raises(StoreUnreachable):
            await check_schema(client)
    with pytest.raises(StoreUnreachable):
        await SharedBreakerState(client).follow(lambda _campaign_id, _record: None)
    await client.aclose()


async def test_a_store_that_is_full_refuses_and_has_changed_nothing(room: Room) -> None:
    desk = await room.open()
    before = await room.everything()
    await room.client.config_set("maxmemory", "1")
    try:
        with pytest.raises(StoreRefused):
            await desk.issue()
    finally:
        await room.client.config_set("maxmemory", "0")
    assert await room.everything() == before


async def test_scripts_that_the_store_has_forgotten_are_sent_again(room: Room) -> None:
    desk = await room.open()
    assert isinstance(await desk.issue("ann"), Issued)
    await room.client.script_flush()
    assert isinstance(await desk.issue("bob"), Issued)


async def test_two_versions_of_a_script_live_side_by_side(room: Room) -> None:
    desk = await room.open()
    other = Scripts(room.client, TURNABLE_CLOCK + "-- another version\n")
    for number in range(2):
        assert isinstance(await desk.issue("ann", str(number)), Issued)
        (outcome,) = await CouponStore(other).issue(desk.known, 0, [desk.wish("bob", str(number))])
        assert isinstance(outcome, Issued)


async def test_time_is_the_stores_own(room: Room) -> None:
    seconds, microseconds = await room.client.time()
    before_ms = seconds * 1000 + microseconds // 1000
    now_ms = await Catalogue(room.client, Scripts(room.client), SECRET).now_ms()
    assert before_ms <= now_ms < before_ms + 60_000


async def test_an_empty_or_an_older_store_takes_this_schema_and_a_newer_one_is_refused(room: Room) -> None:
    await check_schema(room.client)
    await check_schema(room.client)
    assert await room.client.hget(keys.META, "schema_version") == str(SCHEMA_VERSION).encode()
    await room.client.hset(keys.META, "schema_version", "1")
    await check_schema(room.client)
    assert await room.client.hget(keys.META, "schema_version") == str(SCHEMA_VERSION).encode()
    await room.client.hset(keys.META, "schema_version", str(SCHEMA_VERSION + 1))
    with pytest.raises(SchemaTooNew, match="start the newer Tidegate"):
        await check_schema(room.client)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rediss://shop:hush@store:6380/1?password=hush", "rediss://store:6380/1"),
        ("unix://shop@/run/store.sock?password=hush", "unix:///run/store.sock"),
        ("redis+cluster://:hush@store:7000", "redis+cluster://store:7000"),
        ("redis+sentinel://one:26379,two/main", "redis+sentinel://one:26379,two/main"),
    ],
)
def test_the_stores_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_credentials(url) == shown
