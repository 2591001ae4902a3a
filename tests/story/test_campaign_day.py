"""The day of a campaign: everybody comes at once, and twice, while the store dies, and every promise is kept."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.caller import suspend
from tests.api.crowd import CLIENTS, Reply, Wish, come, connected
from tests.api.process import CODE_SECRET, ApiProcess, running_api
from tests.store.server import StoreServer, running_store

pytestmark = pytest.mark.anyio

BENEFIT: Final = 2500
CAMPAIGN: Final[dict[str, Any]] = {
    "name": "The day",
    "benefit": {"kind": "amount", "amount": BENEFIT, "currency": "CNY"},
    "max_coupons": 100_000,
    "validity": {"timezone": "Asia/Shanghai", "duration": "P7D"},
    "issue_rate": {"per_second": 1_000_000, "burst": 1_000_000},
}
QUICK_RECOVERY: Final = {
    "TIDEGATE_BREAKER__MINIMUM_PAUSE_MS": "500",
    "TIDEGATE_BREAKER__WELL_BEFORE_REOPENING_MS": "300",
    "TIDEGATE_BREAKER__RAMP_MS": "1000",
}


@pytest.fixture(scope="module")
def store() -> Iterator[StoreServer]:
    """A store that the day may kill."""
    with running_store() as server:
        yield server


@pytest.fixture(scope="module")
def api(store: StoreServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiProcess]:
    """One API process over it."""
    with running_api(store.url, tmp_path_factory.mktemp("day") / "api.log", **QUICK_RECOVERY) as running:
        yield running


@asynccontextmanager
async def operator(api: ApiProcess) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who looks after the campaign."""
    async with httpx.AsyncClient(base_url=api.url, timeout=10, trust_env=False) as http:
        yield http


async def open_campaign(http: httpx.AsyncClient, name: str, **limits: Any) -> None:
    """A running campaign whose limits are tried, so the breaker keeps out of it."""
    created = await http.post(
        "/v1/campaigns", json=CAMPAIGN | {"id": name, "code_prefix": f"DAY{name[:5]}".upper()} | limits
    )
    assert created.status_code == 201, created.text
    assert (await http.post(f"/v1/campaigns/{name}/start", json={"reason": "the day has come"})).is_success
    forced = {"mode": "forced_closed", "reason": "the limits are tried"}
    assert (await http.put("/v1/breaker", json=forced)).is_success


async def counters(http: httpx.AsyncClient, name: str) -> dict[str, int]:
    """The ledger, which must always add up."""
    figures: dict[str, int] = (await http.get(f"/v1/campaigns/{name}")).json()["counters"]
    states = ("outstanding", "reserved", "redeemed", "expired", "deactivated")
    assert figures["issued"] == sum(figures[state] for state in states)
    return figures


async def crowd(api: ApiProcess, campaign: str, wishes: list[Wish], times: int = 1) -> list[Reply]:
    """What 200 clients get, who bring each wish so many times."""
    replies: list[Reply] = []
    await come(api.url, campaign, (wish for wish in wishes for _ in range(times)), replies.append)
    return replies


def codes(replies: list[Reply]) -> list[str]:
    """The codes in the order of their answers, replays and all."""
    return [reply.json["code"] for reply in replies if reply.status == 201]


def tells_no_secret(log: Path) -> None:
    """Whatever happened, the log is JSON lines that name no code, no idempotency key and no secret."""
    text = log.read_text()
    events = [json.loads(line)["event"] for line in text.splitlines()]
    assert "request" in events
    assert [secret for secret in ("DAY", "idem-", CODE_SECRET[:20]) if secret in text] == []


@pytest.mark.parametrize("times", [1, 2])
async def test_200_clients_take_5000_coupons_and_not_one_more(api: ApiProcess, times: int) -> None:
    campaign = f"stock-{times}"
    async with operator(api) as http:
        budget = {"amount": 5_000 * BENEFIT + 1, "currency": "CNY"}
        await open_campaign(http, campaign, max_coupons=5_000, budget=budget, code_prefix=f"DAY1{times}")
        wishes = [(f"user-{number}", "idem-1") for number in range(5_200)]
        replies = await crowd(api, campaign, wishes, times)
        assert Counter(reply.status for reply in replies) == {201: 5_000 * times, 409: 200 * times}
        assert {reply.json["reason"] for reply in replies if reply.status == 409} == {"sold_out"}
        assert sum(reply.is_replay for reply in replies) == 5_000 * (times - 1)
        assert Counter(Counter(codes(replies)).values()) == {times: 5_000}
        figures = await counters(http, campaign)
        assert (figures["issued"], figures["outstanding"], figures["remaining"]) == (5_000, 5_000, 0)
        assert figures["budget_remaining"] == 1
    tells_no_secret(api.log)


@pytest.mark.parametrize("times", [1, 2])
async def test_500_users_who_try_ten_times_get_three_each(api: ApiProcess, times: int) -> None:
    campaign = f"cap-{times}"
    async with operator(api) as http:
        await open_campaign(http, campaign, max_coupons_per_user=3, code_prefix=f"DAY2{times}")
        wishes = list(product((f"user-{number}" for number in range(500)), (f"idem-{number}" for number in range(10))))
        replies = await crowd(api, campaign, wishes, times)
        assert Counter(reply.status for reply in replies) == {201: 1_500 * times, 409: 3_500 * times}
        users = Counter(reply.json["user_id"] for reply in replies if reply.status == 201)
        assert (len(users), set(users.values())) == (500, {3 * times})
        assert Counter(Counter(codes(replies)).values()) == {times: 1_500}
        assert (await counters(http, campaign))["issued"] == 1_500


async def test_one_code_redeemed_by_200_clients_is_redeemed_once(api: ApiProcess) -> None:
    async with operator(api) as http, connected(api.url) as ann:
        await open_campaign(http, "one", max_coupons=1)
        code = (await ann.issue("one", ("ann", "idem-1"))).json["code"]

        async def redeem(number: int) -> Reply:
            async with connected(api.url) as client:
                order = {"merchant_id": "tea-house", "order_id": f"order-{number}"}
                return await client.post(f"/v1/coupons/{code}/redemptions", order)

        replies = await asyncio.gather(*[redeem(number) for number in range(CLIENTS)])
        assert Counter(reply.status for reply in replies) == {201: 1, 409: CLIENTS - 1}
        assert (await counters(http, "one"))["redeemed"] == 1
    tells_no_secret(api.log)


async def test_a_store_killed_in_the_middle_loses_no_coupon_that_was_promised(
    api: ApiProcess, store: StoreServer
) -> None:
    wishes = [(f"user-{number}", "idem-1") for number in range(6_000)]
    promised: list[Reply] = []
    reached = {answered: asyncio.Event() for answered in (1_000, 3_000)}

    def heard(reply: Reply) -> None:
        promised.append(reply)
        if (event := reached.get(len(promised))) is not None:
            event.set()

    async with operator(api) as http:
        await open_campaign(http, "crash")
        assert (await http.put("/v1/breaker", json={"mode": "auto", "reason": "let it see for itself"})).is_success
        day = asyncio.create_task(come(api.url, "crash", wishes, heard))
        for event in reached.values():
            await event.wait()
            store.kill()
            await asyncio.to_thread(store.start)
        await day
        assert {reply.status for reply in promised} == {201}
        assert sum(reply.refusals for reply in promised) > 0
        figures = await counters(http, "crash")
        assert (figures["issued"], figures["outstanding"]) == (6_000, 6_000)
        again = await crowd(api, "crash", wishes)
        assert all(reply.is_replay for reply in again)
        assert len(set(codes(promised))) == 6_000
        assert sorted(reply.body for reply in again) == sorted(reply.body for reply in promised)
        for reply in promised[::30]:
            assert (await http.get(f"/v1/coupons/{reply.json['code']}")).json() == reply.json
    tells_no_secret(api.log)


async def test_a_store_that_hangs_is_told_quickly_and_the_process_lives(api: ApiProcess, store: StoreServer) -> None:
    async with operator(api) as http, connected(api.url) as ann:
        await open_campaign(http, "hang")
        await suspend(store)
        hung = asyncio.create_task(ann.post("/v1/campaigns/hang/coupons", {"user_id": "ann"}, "idem-1"))
        assert (await http.get("/livez")).status_code == 200
        assert not hung.done()
        assert ((await hung).status, (await hung).json["reason"]) == (503, "store_unavailable")
        assert (await http.get("/readyz")).status_code == 503
        await asyncio.to_thread(store.kill)
        await asyncio.to_thread(store.start)
        assert (await ann.issue("hang", ("ann", "idem-1"))).status == 201
        assert (await counters(http, "hang"))["issued"] == 1


async def test_two_processes_keep_the_same_promise_and_one_scrape_counts_both(
    store: StoreServer, tmp_path: Path
) -> None:
    with running_api(store.url, tmp_path / "api.log", TIDEGATE_API_WORKERS="2") as api:
        async with operator(api) as http:
            await open_campaign(http, "pair", max_coupons=2_000)
            await both_are_up(api)
            replies = await crowd(api, "pair", [(f"user-{number}", "idem-1") for number in range(2_200)], times=2)
            assert Counter(reply.status for reply in replies) == {201: 4_000, 409: 400}
            assert Counter(Counter(codes(replies)).values()) == {2: 2_000}
            assert len({reply.process for reply in replies}) == 2
            assert (await counters(http, "pair"))["issued"] == 2_000
            requests = sum(1 + reply.refusals for reply in replies)
            # A process hands over what it has tallied once a second.
            for _ in range(50):
                counted = await scrape(http)
                if counted["http_requests", "issue"] == requests:
                    break
                await asyncio.sleep(0.1)
        assert counted["http_requests", "issue"] == requests
        decided = {outcome: counted["issue", outcome] for outcome in ("issued", "replayed", "sold_out")}
        assert decided == {"issued": 2_000, "replayed": 2_000, "sold_out": 400}
    tells_no_secret(tmp_path / "api.log")


async def both_are_up(api: ApiProcess) -> None:
    """Wait until two processes take connections."""

    async def knock(_number: int) -> bytes:
        async with connected(api.url) as client:
            return (await client.post("/livez", {})).process

    for _ in range(300):
        if len(set(await asyncio.gather(*map(knock, range(20))))) == 2:
            return
        await asyncio.sleep(0.1)
    pytest.fail("one process takes all connections")


async def scrape(http: httpx.AsyncClient) -> Counter[tuple[str, str]]:
    """Issue outcomes and HTTP requests, as one look at /metrics counts them."""
    counted: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families((await http.get("/metrics")).text):
        for sample in family.samples:
            if sample.name == "tidegate_issue_total":
                counted["issue", sample.labels["outcome"]] += int(sample.value)
            if sample.name == "tidegate_http_request_duration_seconds_count":
                counted["http_requests", sample.labels["call"]] += int(sample.value)
    return counted
