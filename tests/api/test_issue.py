"""Issue over HTTP: a coupon and the same coupon again, and every refusal with its status, reason and headers."""

import asyncio
from typing import Any

import httpx
import pytest

from service.api.app import fastapi_lane
from service.api.parts import Parts
from tests.api.caller import CAMPAIGN, Caller, contents, reason, refusal, settings, suspend
from tests.api.exchange import until
from tests.store.desk import EXPIRY, Room
from tests.store.server import StoreServer

pytestmark = pytest.mark.anyio

ISSUED_AT, EXPIRES_AT = "2026-02-06T07:46:00.000+08:00", "2026-02-23T23:59:59.999+08:00"
SLOW = {"per_second": 0.5, "burst": 2}


async def test_an_issued_coupon_is_whole_and_can_be_read_again(api: Caller) -> None:
    await api.open()
    issued = await api.issue()
    code = issued.json().pop("code")
    assert issued.status_code == 201
    assert "idempotency-replayed" not in issued.headers
    assert issued.json() == {
        "code": code,
        "campaign_id": "spring",
        "user_id": "ann",
        "status": "issued",
        "benefit": CAMPAIGN["benefit"],
        "issued_at": ISSUED_AT,
        "starts_at": ISSUED_AT,
        "expires_at": EXPIRES_AT,
    }
    assert [len(group) for group in code.split("-")] == [4, 4, 4, 4, 4]
    assert code.startswith("QWEN-")
    assert await api.coupon(code) == issued.json()


async def test_a_coupon_is_found_however_people_write_its_code(api: Caller) -> None:
    await api.open()
    code = await api.code()
    for spelled in (code.lower(), code.replace("-", ""), code.replace("0", "O").replace("1", "l")):
        assert (await api.coupon(spelled))["code"] == code


async def test_a_user_sees_his_coupons_of_the_campaign_and_nobody_elses(api: Caller) -> None:
    await api.open()
    codes = [await api.code("ann", key) for key in ("first", "second")]
    await api.code("bob")
    await api.redeem(codes[0])
    coupons = (await api.http.get("/v1/campaigns/spring/users/ann/coupons")).json()["coupons"]
    assert [(coupon["code"], coupon["status"]) for coupon in coupons] == [(codes[0], "redeemed"), (codes[1], "issued")]
    assert coupons == [await api.coupon(code) for code in codes]
    assert (await api.http.get("/v1/campaigns/spring/users/eve/coupons")).json() == {"coupons": []}


@pytest.mark.parametrize("fate", ["nothing", "redeemed", "deactivated", "paused", "stopped", "sold out", "extended"])
async def test_the_same_key_gets_the_same_answer_whatever_has_become_of_it(api: Caller, fate: str) -> None:
    await api.open(max_coupons=1 if fate == "sold out" else 10, user_rate={"per_second": 0.001, "burst": 1})
    first = await api.issue()
    match fate:
        case "redeemed":
            await api.redeem(first.json()["code"])
        case "deactivated":
            await api.deactivate(first.json()["code"])
        case "paused" | "stopped":
            await api.tell("pause" if fate == "paused" else "stop")
        case "extended":
            await api.extend()
    again = await api.issue()
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert (await api.campaign())["counters"]["issued"] == 1


async def test_a_key_belongs_to_its_user(api: Caller) -> None:
    await api.open()
    assert await api.code("ann", "first") != await api.code("bob", "first")


async def test_a_key_has_1_to_255_bytes(api: Caller, room: Room) -> None:
    await api.open()
    before = await contents(room)
    bare = await api.http.post("/v1/campaigns/spring/coupons", json={"user_id": "ann"})
    for refused in (bare, await api.issue(key=""), await api.issue(key="k" * 256)):
        assert refusal(refused) == (400, "idempotency_key_required")
    assert await contents(room) == before
    assert (await api.issue(key="k" * 255)).status_code == 201


@pytest.mark.parametrize(
    ("changes", "verb", "reason"),
    [
        ({"max_coupons_per_user": 2}, None, "per_user_limit"),
        ({"max_coupons": 2}, None, "sold_out"),
        ({"budget": {"amount": 7499, "currency": "CNY"}}, None, "budget_exhausted"),
        ({}, "stop", "campaign_not_running"),
    ],
)
async def test_what_waiting_does_not_change_is_a_409_that_does_not_say_when_to_come_back(
    api: Caller, room: Room, changes: dict[str, Any], verb: str | None, reason: str
) -> None:
    await api.open(**changes)
    for key in ("first", "second"):
        assert (await api.issue(key=key)).status_code == 201
    if verb:
        await api.tell(verb)
    before = await contents(room)
    refused = await api.issue(key="third")
    assert refusal(refused) == (409, reason)
    assert not {"retry-after", "ratelimit", "ratelimit-policy"} & set(refused.headers)
    assert await contents(room) == before


async def test_a_campaign_whose_coupons_have_expired_has_ended(api: Caller, room: Room) -> None:
    await api.open()
    await room.clock.set(EXPIRY)
    refused = await api.issue()
    assert refusal(refused) == (409, "campaign_not_running")
    assert refused.json()["campaign_status"] == "ended"


@pytest.mark.parametrize("bucket", ["campaign", "user"])
async def test_an_empty_bucket_is_named_with_its_rate_and_when_it_has_a_token(
    api: Caller, room: Room, bucket: str
) -> None:
    await api.open(**{"issue_rate" if bucket == "campaign" else "user_rate": SLOW})
    for key in ("first", "second"):
        assert (await api.issue(key=key)).status_code == 201
    await room.clock.advance(700)
    before = await contents(room)
    refused = await api.issue(key="third")
    assert refusal(refused) == (429, "rate_limited")
    assert (refused.json()["bucket"], refused.json()["retry_after_ms"]) == (bucket, 1300)
    assert refused.headers["retry-after"] == "2"
    assert refused.headers["ratelimit-policy"] == f'"{bucket}";q=2;w=4'
    assert refused.headers["ratelimit"] == f'"{bucket}";r=0;t=2'
    assert await contents(room) == before
    await room.clock.advance(1300)
    assert (await api.issue(key="third")).status_code == 201


async def test_an_operators_pause_stops_issue_and_nothing_else(api: Caller) -> None:
    await api.open()
    code, other = await api.code("ann"), await api.code("bob")
    await api.tell("pause")
    answers = [await api.issue("eve") for _ in range(20)]
    assert {refusal(answer) for answer in answers} == {(503, "issuance_paused")}
    assert {answer.json()["paused_by"] for answer in answers} == {"operator"}
    waits = {int(answer.headers["retry-after"]) for answer in answers}
    # Spread, so that they do not all come back in the same second.
    assert min(waits) >= 30
    assert len(waits) > 1
    assert "stay valid" in answers[0].json()["detail"]
    assert (await api.redeem(code)).status_code == 201
    held = await api.redeem(other, hold=True)
    assert (await api.settle("commit", held.json()["id"])).status_code == 200
    await api.tell("resume")
    assert (await api.issue("eve")).status_code == 201


async def test_a_store_that_is_away_and_a_line_that_is_full_are_503_and_charge_nothing(own_store: StoreServer) -> None:
    parts = Parts(settings(own_store.url, group_commit={"max_waiting": 1, "store_timeout_ms": 200}))
    async with parts.running(), Caller(fastapi_lane(parts)) as api:
        await api.open(validity={"timezone": "UTC", "duration": "P7D"})
        code = await api.code()
        await suspend(own_store)
        served = [asyncio.create_task(api.issue("under-way"))]
        await until(lambda: any(line.under_way for line in parts.issuing.lines()))
        served.append(asyncio.create_task(api.issue("in-line")))
        await until(lambda: any(line.waiting for line in parts.issuing.lines()))
        answers = [await api.issue(f"user-{number}") for number in range(3)]
        assert [reason(answer) for answer in answers] == ["overloaded"] * 3
        answers += await asyncio.gather(*served, api.redeem(code))
        assert [reason(answer) for answer in answers[3:]] == ["store_unavailable"] * 3
        own_store.kill()
        answers += [await api.issue("late"), await api.redeem(code), await api.http.get("/v1/campaigns/spring")]
        assert {answer.status_code for answer in answers} == {503}
        assert {int(answer.headers["retry-after"]) for answer in answers} <= {1, 2, 3, 4}
        own_store.start()
        assert (await api.issue("late")).status_code == 201


async def test_each_call_is_told_what_comes_of_repeating_it_when_the_store_is_away(own_store: StoreServer) -> None:
    parts = Parts(settings(own_store.url))
    async with parts.running(), Caller(fastapi_lane(parts)) as api:
        await api.open(validity={"timezone": "UTC", "duration": "P7D"})
        code, other = await api.code("ann"), await api.code("bob")
        held = (await api.redeem(other, hold=True)).json()["id"]
        own_store.kill()
        assert "the same key" in detail(await api.issue())
        assert "the same code and order" in detail(await api.redeem(code))
        for answer in (
            await api.settle("commit", held),
            await api.deactivate(code),
            await api.extend(),
            await api.tell("pause"),
            await api.http.post("/v1/campaigns/spring/tickets", json={"user_id": "ann"}),
        ):
            assert "look before you repeat it" in detail(answer)
            assert "counts once" not in detail(answer)
        own_store.start()


def detail(answer: httpx.Response) -> str:
    assert refusal(answer) == (503, "store_unavailable")
    return str(answer.json()["detail"])
