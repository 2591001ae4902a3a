"""Without API keys, no page of another site gets a browser to change anything; all others are served as before."""

import pytest
from pydantic import SecretStr

from service.api.app import create_app
from tests.api.caller import Caller, contents, refusal, serving, settings
from tests.store.desk import Room

pytestmark = pytest.mark.anyio

ORIGIN = "http://tidegate.example"
FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://tidegate.example:8001"},
    {"Sec-Fetch-Site": "cross-site", "Origin": ORIGIN},
    *[{"Origin": origin} for origin in ("http://evil.example", f"{ORIGIN}:8001", f"{ORIGIN}.evil.example", "null")],
    {"Origin": "http://not-tidegate.example"},
]
OWN = [
    {"Sec-Fetch-Site": "same-origin", "Origin": ORIGIN},
    {"Sec-Fetch-Site": "none"},
    {"Origin": ORIGIN},
    {"Origin": "https://tidegate.example"},
    {},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_what_another_sites_page_sends_changes_nothing(api: Caller, room: Room, headers: dict[str, str]) -> None:
    await api.open()
    code = await api.code()
    before = await contents(room)
    # A page may send a body of this kind without asking the service beforehand.
    api.http.headers.update(headers | {"Content-Type": "text/plain"})
    for method, path, body in (
        ("POST", "/v1/webhooks", b'{"url":"https://evil.example","types":["coupon.issued"]}'),
        ("POST", "/v1/campaigns/spring/stop", b'{"reason":"a prank"}'),
        ("POST", f"/v1/coupons/{code}/deactivate", b'{"reason":"a prank"}'),
        ("POST", "/v1/campaigns/spring/imports", b"ACME-1\n"),
        ("PUT", "/v1/breaker", b'{"mode":"forced_open","reason":"a prank"}'),
        ("DELETE", "/v1/merchants/tea-house/busy", b""),
        ("PATCH", "/v1/campaigns/spring", b'{"max_coupons":1}'),
    ):
        assert refusal(await api.http.request(method, path, content=body)) == (403, "cross_site"), path
    assert refusal(await api.issue("bob")) == (403, "cross_site")
    assert refusal(await api.redeem(code)) == (403, "cross_site")
    assert (await api.http.get(f"/v1/coupons/{code}")).json()["status"] == "issued"
    assert await contents(room) == before


@pytest.mark.parametrize("headers", OWN)
async def test_the_services_own_page_and_whoever_is_no_browser_are_served(api: Caller, headers: dict[str, str]) -> None:
    api.http.headers.update(headers)
    await api.open()
    assert (await api.redeem(await api.code())).status_code == 201
    hook = {"url": "https://shop.example/hook", "types": ["coupon.issued"]}
    assert (await api.http.post("/v1/webhooks", json=hook)).status_code == 201
    assert (await api.tell("stop")).status_code == 200


async def test_where_a_key_is_asked_for_no_browser_shows_it_unasked(room: Room, store_url: str) -> None:
    del room
    app = create_app(settings(store_url, api_keys=(SecretStr("first-key"),)))
    async with serving(app), Caller(app, **FOREIGN[0]) as api:
        assert refusal(await api.tell("stop")) == (401, "unauthorized")
        api.http.headers["Authorization"] = "Bearer first-key"
        await api.open(validity={"timezone": "UTC", "duration": "P7D"})
        assert (await api.redeem(await api.code())).status_code == 201
