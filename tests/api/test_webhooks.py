"""Webhooks over HTTP: registered with a secret that is shown once, listed, deleted; and only where they may go."""

import re
from typing import Any

import httpx
import pytest

from service.api.parts import Parts
from service.domain import webhooks as domain
from service.domain.webhooks import Health, WebhookStatus
from tests.api.caller import Caller, contents, field_errors, refusal
from tests.store.desk import Room

pytestmark = pytest.mark.anyio

BODY: dict[str, Any] = {"url": "https://shop.example/hook", "types": ["coupon.redeemed", "coupon.issued"]}


async def create(api: Caller, **changes: Any) -> httpx.Response:
    return await api.http.post("/v1/webhooks", json=BODY | changes)


async def test_a_webhook_shows_its_secret_once(api: Caller) -> None:
    await api.open()
    created = await create(api, campaign_id="spring")
    assert created.status_code == 201
    webhook = created.json()
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", webhook.pop("secret"))
    assert created.headers["location"] == f"/v1/webhooks/{webhook['id']}"
    shown = await api.http.get(f"/v1/webhooks/{webhook['id']}")
    assert shown.json() == webhook
    assert (webhook["types"], webhook["campaign_id"]) == (["coupon.issued", "coupon.redeemed"], "spring")
    assert (webhook["status"], webhook["failures"], webhook["retry_at"]) == ("active", 0, None)
    assert (await api.http.get("/v1/webhooks")).json() == {"webhooks": [webhook]}


async def test_how_its_deliveries_went_is_shown(parts: Parts, api: Caller) -> None:
    webhook_id = (await create(api)).json()["id"]
    ((webhook, _),) = await parts.webhooks.list()
    await parts.webhooks.note_failure(webhook, Health(WebhookStatus.ACTIVE, 3, 1, 60_000, "HTTP status 500"))
    shown = (await api.http.get(f"/v1/webhooks/{webhook_id}")).json()
    assert (shown["failures"], shown["last_failure"]) == (3, "HTTP status 500")
    assert shown["retry_at"].startswith("1970-01-01T00:01:00")
    await parts.webhooks.note_failure(webhook, Health(WebhookStatus.DISABLED, 4, 1, 60_000, "HTTP status 410"))
    shown = (await api.http.get(f"/v1/webhooks/{webhook_id}")).json()
    assert (shown["status"], shown["retry_at"]) == ("disabled", None)


async def test_a_deleted_webhook_leaves_nothing_behind(room: Room, parts: Parts, api: Caller) -> None:
    before = await contents(room)
    webhook_id = (await create(api)).json()["id"]
    ((webhook, _),) = await parts.webhooks.list()
    told = await parts.webhooks.told(webhook, "spring", 0)
    assert await parts.webhooks.lease(webhook, "a worker", 60_000)
    assert await parts.webhooks.advance(webhook, "spring", 0, told, told._replace(number=1), delivered=True)
    await parts.webhooks.note_failure(webhook, Health(failures=1))
    assert (await api.http.delete(f"/v1/webhooks/{webhook_id}")).status_code == 204
    assert refusal(await api.http.delete(f"/v1/webhooks/{webhook_id}")) == (404, "not_found")
    assert refusal(await api.http.get(f"/v1/webhooks/{webhook_id}")) == (404, "not_found")
    assert not await parts.webhooks.lease(webhook, "a worker", 60_000)
    assert not await parts.webhooks.advance(webhook, "spring", 0, told, told._replace(number=1), delivered=True)
    await parts.webhooks.note_failure(webhook, Health(failures=1))
    assert await contents(room) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", "http://shop.example/"),
        ("url", "https://"),
        ("url", "https://127.0.0.1/"),
        ("url", "https://10.0.0.1:8443/"),
        ("url", "https://[::ffff:169.254.169.254]/"),
        ("url", "https://[2002:7f00:1::]/"),
        ("url", "https://224.0.0.1/"),
        ("url", "https://shop.example:99999/"),
        ("url", "https://ann:secret@shop.example/"),
        ("url", "https://shop.example/#top"),
        ("url", "https://shop.example/ö"),
        ("url", "https://shop.example/\r\nHost: other"),
        ("url", "https://shop.example/" + "a" * 500),
        ("url", "ftp://shop.example/"),
        ("url", 7),
        ("types", []),
        ("types", ["coupon.eaten"]),
        ("types", "coupon.issued"),
        ("campaign_id", "nowhere"),
        ("campaign_id", "No Id"),
        ("secret", "whsec_mine"),
    ],
)
async def test_bad_webhooks_are_refused_and_change_nothing(room: Room, api: Caller, field: str, value: object) -> None:
    before = await contents(room)
    refused = await create(api, **{field: value})
    assert any(name.startswith(field) for name in field_errors(refused))
    assert await contents(room) == before


async def test_there_are_only_so_many(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.webhooks.MAX_WEBHOOKS", 2)
    assert [(await create(api)).status_code for _ in range(2)] == [201, 201]
    assert refusal(await create(api)) == (409, "too_many_webhooks")
    assert domain.MAX_WEBHOOKS == 100
