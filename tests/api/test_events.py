"""Events over HTTP: complete, in order, from any cursor on; and who follows them is told what happens, and let go."""

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest

from service.api import events as api_events
from service.api import listeners
from service.api.parts import Parts
from service.domain.events import COUPONS_PER_PART, STATUS_AFTER, parts_of
from service.store import keys
from tests.api.caller import CAMPAIGN, Caller, field_errors, refusal
from tests.api.process import ApiProcess, running_api
from tests.store.desk import Room
from tests.store.server import StoreServer
from tests.story.running import eventually

pytestmark = pytest.mark.anyio

EVENTS = "/v1/campaigns/spring/events"


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


async def read(api: Caller, **query: Any) -> list[dict[str, Any]]:
    return lines(await api.http.get(EVENTS, params=query))


async def test_every_verb_is_told_with_its_codes_in_order(api: Caller) -> None:
    await api.open()
    assert await read(api) == []
    codes = [await api.code(user) for user in ("ann", "bob", "cid", "dan")]
    redemption = (await api.redeem(codes[0], order_amount=1000)).json()
    held = (await api.redeem(codes[1], hold=True)).json()
    await api.settle("commit", held["id"])
    await api.settle("rollback", redemption["id"])
    await api.deactivate(codes[3])
    await api.extend()
    told = await read(api)
    assert [(line["type"], line["data"].get("codes")) for line in told] == [
        *(("coupon.issued", [code]) for code in codes),
        ("coupon.redeemed", codes[:1]),
        ("coupon.reserved", codes[1:2]),
        ("coupon.redeemed", codes[1:2]),
        ("coupon.rolled_back", codes[:1]),
        ("coupon.deactivated", codes[3:]),
        ("campaign.extended", None),
    ]
    assert {line["type"] for line in told} <= set(STATUS_AFTER)
    assert all(line["campaign_id"] == "spring" and line["at"].endswith("+00:00") for line in told)
    assert told[0]["data"]["amount"] == 2500
    (told_redemption,) = told[4]["data"]["redemptions"]
    assert told_redemption == {
        "id": redemption["id"],
        "merchant_id": "tea-house",
        "order_id": "order-1",
        "discount_amount": 1000,
    }
    assert told[6]["data"]["redemptions"][0]["id"] == held["id"]
    assert told[7]["data"]["redemptions"] == [{"id": redemption["id"]}]
    assert told[8]["data"]["reason"] == "stolen"
    assert told[9]["data"]["extension_id"] == "spring.1"
    assert told[9]["data"]["expires_at"] == "2026-02-28T15:59:59.999+00:00"


async def test_what_each_coupon_drew_is_told(api: Caller) -> None:
    pot = {"kind": "red_envelope", "pot": 1_000, "shares": 3, "min_share": 1, "currency": "CNY"}
    await api.open(benefit=pot, max_coupons=3, budget={"amount": 1_000, "currency": "CNY"})
    drawn = [(await api.issue(user)).json()["benefit"]["amount"] for user in ("ann", "bob", "cid")]
    assert [line["data"]["amounts"] for line in await read(api)] == [[amount] for amount in drawn]


@pytest.mark.parametrize("limit", [1, 3, 200])
async def test_reading_on_from_each_cursor_misses_nothing_and_repeats_nothing(
    parts: Parts, api: Caller, limit: int
) -> None:
    parts.settings = parts.settings.model_copy(update={"campaign_shards": 3})
    await api.open()
    codes = {await api.code(f"user-{number}") for number in range(12)}
    told: list[str] = []
    query: dict[str, Any] = {"limit": limit}
    while page := await read(api, **query):
        assert len(page) <= limit
        told += [code for line in page for code in line["data"]["codes"]]
        query["cursor"] = page[-1]["cursor"]
    assert len(told) == 12
    assert set(told) == codes
    assert await read(api, **query) == []


async def test_an_event_of_many_coupons_is_told_in_several_lines_and_lost_by_no_cursor(room: Room, api: Caller) -> None:
    await api.open()
    many: Any = {"type": "coupon.lapsed", "data": b"\x81\xa7coupons\x92\x00\xcd\x02\x01"}
    await room.client.xadd(keys.events_key("spring", 0), many)
    first, second = await read(api)
    assert (len(first["data"]["codes"]), len(second["data"]["codes"])) == (COUPONS_PER_PART, 1)
    assert await read(api, cursor=first["cursor"]) == [first, second]
    assert await read(api, cursor=second["cursor"]) == []


async def test_redemptions_are_told_alike_however_a_version_has_packed_them(room: Room, api: Caller) -> None:
    await api.open()
    coupons = [0, 2]
    by_column = [[0, 1], ["tea-house", "book-shop"], ["order-1", "order-2"], [2500, 1000], [1, 2], False]
    one_list = [coupons, [1, "tea-house", "order-1", 2500, 2, "book-shop", "order-2", 1000], False]
    told = [[1, "tea-house", "order-1", 2500], [2, "book-shop", "order-2", 1000]]
    by_name = {"coupons": coupons, "redemptions": told}
    by_place = [[0, 1, 0, "tea-house", "order-1", 2500], [1, 2, 0, "book-shop", "order-2", 1000]]
    for data in (by_column, one_list, by_name, by_place):
        event: Any = {"type": "coupon.redeemed", "data": msgpack.packb(data)}
        await room.client.xadd(keys.events_key("spring", 0), event)
    newest, *older = [line["data"] for line in await read(api)]
    assert older == [newest] * 3
    assert [(told["merchant_id"], told["order_id"], told["discount_amount"]) for told in newest["redemptions"]] == [
        ("tea-house", "order-1", 2500),
        ("book-shop", "order-2", 1000),
    ]


async def test_as_many_redemptions_as_a_packed_event_has_columns_are_read_as_their_version_packed_them(
    room: Room, api: Caller
) -> None:
    await api.open()
    six = [[number, 1, 0, "tea-house", f"order-{number}", 2500] for number in range(6)]
    event: Any = {"type": "coupon.redeemed", "data": msgpack.packb(six)}
    await room.client.xadd(keys.events_key("spring", 0), event)
    (line,) = await read(api)
    assert [told["order_id"] for told in line["data"]["redemptions"]] == [f"order-{number}" for number in range(6)]


@pytest.mark.parametrize("follow", [False, True])
async def test_between_two_events_others_are_served(
    api: Caller, parts: Parts, monkeypatch: pytest.MonkeyPatch, follow: bool
) -> None:
    await api.open()
    for user in ("ann", "bob", "cid"):
        await api.issue(user)
    waiting: list[str] = []
    most_waiting: list[int] = []

    def spell_while_somebody_waits(*event: Any) -> Any:
        waiting.append("somebody")
        most_waiting.append(len(waiting))
        asyncio.get_running_loop().call_soon(waiting.pop)
        # Whoever follows is let go at the end of what there is.
        monkeypatch.setattr(parts.listeners, "stopping", True)
        return parts_of(*event)

    monkeypatch.setattr("service.api.events.parts_of", spell_while_somebody_waits)
    answer = await api.http.get(EVENTS, params={"follow": follow})
    assert len(answer.text.split()) == 3
    assert most_waiting == [1, 1, 1]


@pytest.mark.parametrize(
    "cursor",
    ["", "x", "!", "ö", "MC0w=", "MC0wLjAtMA", "a" * 4096, urlsafe_b64encode(b"1-2-3").decode(), "LTEtMA", "MDAtMA"],
)
async def test_a_cursor_that_nobody_was_given_is_refused(api: Caller, cursor: str) -> None:
    await api.open()
    assert "cursor" in field_errors(await api.http.get(EVENTS, params={"cursor": cursor}))


async def test_bad_questions_are_refused(api: Caller) -> None:
    assert refusal(await api.http.get(EVENTS)) == (404, "not_found")
    await api.open()
    for query in ({"limit": 0}, {"limit": 201}, {"limit": "all"}, {"follow": "maybe"}, {"cursor": "a" * 4097}):
        assert field_errors(await api.http.get(EVENTS, params=query))


async def test_a_cursor_before_what_was_trimmed_is_told_so_and_where_to_go_on(room: Room, api: Caller) -> None:
    await api.open()
    for user in ("ann", "bob", "cid"):
        await api.issue(user)
    told = await read(api)
    events = await room.events()
    await room.client.xtrim(keys.events_key("spring", 0), minid=str(events[2].id))
    await room.client.hset(keys.export_key("spring", 0), "trimmed", str(events[1].id))
    gone = await api.http.get(EVENTS, params={"cursor": told[0]["cursor"]})
    assert refusal(gone) == (410, "cursor_expired")
    assert await read(api, cursor=gone.json()["cursor"]) == told[2:]
    assert await read(api, cursor=told[1]["cursor"]) == told[2:]
    assert await read(api) == told[2:]


async def test_too_many_listeners_are_sent_away_and_reading_goes_on(
    api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "MAX_LISTENERS", 0)
    await api.open()
    refused = await api.http.get(EVENTS, params={"follow": True})
    assert refusal(refused) == (503, "too_many_listeners")
    assert 1 <= int(refused.headers["retry-after"]) <= 1 + api_events.RETRY_SPREAD_S
    assert await read(api) == []


def open_and_issue(api: ApiProcess, users: list[str]) -> None:
    """Open the campaign, if it is not, and issue a coupon to each user."""
    httpx.post(f"{api.url}/v1/campaigns", json=CAMPAIGN | {"validity": {"timezone": "UTC", "duration": "P7D"}})
    httpx.post(f"{api.url}/v1/campaigns/spring/start", json={"reason": "as planned"})
    for user in users:
        key = {"Idempotency-Key": "first"}
        issued = httpx.post(f"{api.url}/v1/campaigns/spring/coupons", json={"user_id": user}, headers=key)
        assert issued.status_code == 201, issued.text


def test_who_follows_is_told_what_happens_and_let_go_with_the_service(own_store: StoreServer, tmp_path: Path) -> None:
    with running_api(own_store.url, tmp_path / "log") as api:
        open_and_issue(api, ["ann"])
        with httpx.stream("GET", f"{api.url}{EVENTS}", params={"follow": True}, timeout=20) as answer:
            arriving = (json.loads(line) for line in answer.iter_lines() if line.strip())
            assert next(arriving)["type"] == "coupon.issued"
            open_and_issue(api, ["bob"])
            second = next(arriving)
            assert len(second["data"]["codes"]) == 1
            # Another who leaves without a word takes no place for long.
            with httpx.stream("GET", f"{api.url}{EVENTS}", params={"follow": True, "cursor": second["cursor"]}):
                pass
            api.terminate()
            began = time.monotonic()
            assert list(arriving) == []
            assert time.monotonic() - began < 8
        eventually(lambda: api.has_ended(), "the API has ended")
