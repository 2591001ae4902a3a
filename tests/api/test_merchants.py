"""Merchants over HTTP: busy for a while, for one campaign or all, seen, taken back, and every bad word refused."""

from typing import Any

import httpx
import pytest

from service.api import merchants
from service.store import merchants as merchant_store
from tests.api.caller import Caller, contents, field_errors, reason, refusal
from tests.store.desk import Room

pytestmark = pytest.mark.anyio

BUSY = "/v1/merchants/tea-house/busy"
UNTIL = "2026-02-06T07:56:00.000+08:00"


async def say_busy(api: Caller, **body: Any) -> httpx.Response:
    return await api.http.put(BUSY, json={"for": "PT10M", "reason": "out of milk"} | body)


async def test_a_busy_merchant_is_seen_and_his_redemptions_are_refused_for_that_long(api: Caller, room: Room) -> None:
    await api.open()
    code = await api.code()
    said = await say_busy(api)
    word = {"campaign_id": "spring", "until": UNTIL, "reason": "out of milk"}
    assert (said.status_code, said.json()) == (200, {"id": "tea-house", "busy": [word]})
    assert (await api.http.get(BUSY)).json() == said.json()
    before = await contents(room)
    busy = await api.redeem(code)
    assert refusal(busy) == (429, "merchant_busy")
    assert (busy.json()["retry_after_ms"], int(busy.headers["retry-after"]) >= 600) == (600_000, True)
    assert await contents(room) == before
    assert 'tidegate_redeem_total{campaign="spring",outcome="merchant_busy"} 1.0' in await api.metrics()
    await room.clock.advance(600_000)
    assert (await api.http.get(BUSY)).json()["busy"] == []
    assert (await api.redeem(code)).status_code == 201


async def test_a_merchant_can_be_busy_for_one_campaign_and_take_it_back(api: Caller) -> None:
    await api.open()
    await api.open(id="summer", code_prefix="SUN")
    code = await api.code()
    elsewhere = (await api.issue(campaign="summer")).json()["code"]
    assert len((await say_busy(api, **{"for": None, "until": UNTIL})).json()["busy"]) == 2
    assert (await api.http.delete(BUSY, params={"campaign_id": "summer"})).json()["busy"] == []
    assert [word["campaign_id"] for word in (await api.http.get(BUSY)).json()["busy"]] == ["spring"]
    assert (await api.redeem(elsewhere)).status_code == 201
    assert reason(await api.redeem(code)) == "merchant_busy"
    assert (
        (await api.http.delete(BUSY)).json() == (await api.http.delete(BUSY)).json() == {"id": "tea-house", "busy": []}
    )
    assert (await api.redeem(code)).status_code == 201
    assert len((await say_busy(api, campaign_id="summer")).json()["busy"]) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"for": None}, "body"),
        ({"until": UNTIL}, "body"),
        ({"for": "PT0S"}, "for"),
        ({"for": "PT24H1S"}, "for"),
        ({"for": "soon"}, "for"),
        ({"for": None, "until": "2026-02-06T07:46:00+08:00"}, "until"),
        ({"for": None, "until": "2026-02-08T00:00:00+08:00"}, "until"),
        ({"for": None, "until": "tomorrow"}, "until"),
        ({"reason": ""}, "reason"),
        ({"reason": "a\nb"}, "reason"),
        ({"campaign_id": "NO SUCH"}, "campaign_id"),
        ({"for_": "PT1M"}, "for_"),
    ],
)
async def test_a_bad_word_is_refused_and_changes_nothing(
    api: Caller, room: Room, body: dict[str, Any], field: str
) -> None:
    await api.open()
    before = await contents(room)
    sent = {name: value for name, value in ({"for": "PT10M", "reason": "milk"} | body).items() if value is not None}
    assert list(field_errors(await api.http.put(BUSY, json=sent))) == [field]
    assert await contents(room) == before


async def test_no_such_merchant_name_or_campaign_is_told_so(api: Caller) -> None:
    await api.open()
    for path in ("/v1/merchants/a%2Fb/busy", f"/v1/merchants/{'a' * 65}/busy"):
        assert (await api.http.get(path)).status_code in (404, 422)
    for method in ("GET", "DELETE"):
        answer = await api.http.request(method, BUSY, params={"campaign_id": "winter"})
        assert refusal(answer) == (404, "not_found")
    assert refusal(await say_busy(api, campaign_id="winter")) == (404, "not_found")


async def test_bounds_answer(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.open()
    monkeypatch.setattr(merchant_store, "MAX_BUSY_MERCHANTS", 0)
    assert refusal(await say_busy(api)) == (409, "too_many_busy_merchants")
    monkeypatch.setattr(merchants, "MAX_SHARDS_TOLD", 0)
    for answer in (await say_busy(api), await api.http.get(BUSY), await api.http.delete(BUSY)):
        assert list(field_errors(answer)) == ["campaign_id"]
    assert (await api.http.get(BUSY, params={"campaign_id": "spring"})).status_code == 200
