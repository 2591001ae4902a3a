"""With API keys set, only what the public may see is open without one, on both lanes alike."""

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from service.api.app import create_app
from service.settings import Settings
from tests.api.caller import Caller, refusal, serving, settings
from tests.store.desk import Room

pytestmark = pytest.mark.anyio

CAMPAIGN, COUPON = "/v1/campaigns/spring", "/v1/coupons/QWEN-0000-0000-0000-0000"
GUARDED = [
    *[("GET", path) for path in ("/v1/campaigns", CAMPAIGN, COUPON, "/metrics", "/docs", "/openapi.json", "/nowhere")],
    ("GET", f"{CAMPAIGN}/users/ann/coupons"),
    ("PATCH", CAMPAIGN),
    *[
        ("POST", path)
        for path in ("/v1/campaigns", f"{CAMPAIGN}/stop", f"{CAMPAIGN}/coupons", f"{CAMPAIGN}/extensions")
    ],
    *[("POST", f"{CAMPAIGN}/tickets"), ("GET", "/v1/tickets/anything"), ("GET", "/v1/status/stream/")],
    *[("POST", path) for path in (f"{COUPON}/redemptions", f"{COUPON}/deactivate", "/v1/redemptions/rd-1/rollback")],
    ("PUT", "/v1/breaker"),
    *[("GET", path) for path in ("/livez/", "/LIVEZ", "/v1/status/", "/livez%0A", "/livez%2F..%2Fmetrics")],
]


def guarded_settings(store_url: str) -> Settings:
    return settings(store_url, api_keys=(SecretStr("first-key"), SecretStr("second-key")))


@pytest.fixture
async def guarded(room: Room, store_url: str) -> AsyncIterator[Caller]:
    """An API with keys, and somebody who shows none."""
    del room
    app = create_app(guarded_settings(store_url))
    async with serving(app), Caller(app) as caller:
        yield caller


@pytest.mark.parametrize("shown", ["", "Bearer wrong", "Bearer ", "Basic first-key", "first-key", "Bearer first-key x"])
async def test_every_other_door_stays_shut_without_one_of_the_keys(guarded: Caller, shown: str) -> None:
    headers = {"Authorization": shown} if shown else {}
    for method, path in GUARDED:
        refused = await guarded.http.request(method, path, headers=headers, content=b"{}")
        assert refusal(refused) == (401, "unauthorized"), path
        assert refused.headers["www-authenticate"] == 'Bearer realm="tidegate"'
        assert "wrong" not in refused.text


async def test_the_public_may_see_the_status_and_a_supervisor_the_health(guarded: Caller) -> None:
    for path in ("/v1/status", "/status", "/livez", "/readyz"):
        assert (await guarded.http.get(path)).status_code == 200


@pytest.mark.parametrize("shown", ["Bearer first-key", "bearer second-key"])
async def test_either_key_opens_both_lanes(guarded: Caller, shown: str) -> None:
    guarded.http.headers["Authorization"] = shown
    await guarded.open(validity={"timezone": "UTC", "duration": "P7D"})
    code = await guarded.code()
    assert (await guarded.redeem(code)).status_code == 201
    assert (await guarded.http.get("/metrics")).status_code == 200


async def test_without_keys_there_is_no_door(room: Room, store_url: str) -> None:
    del room
    app = create_app(settings(store_url))
    async with serving(app), Caller(app) as api:
        assert (await api.http.get("/v1/campaigns")).status_code == 200
