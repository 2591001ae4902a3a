"""What operators and the public see and do: status, the breaker's override, health; and what a pause costs."""

import json
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

import pytest
from structlog.typing import EventDict

from service.api.app import fastapi_lane
from service.api.door import Door, Doorkeeper
from service.api.parts import Parts
from service.store import breaker_state, keys
from tests.api.caller import Caller, field_errors, reason, refusal, settings, suspend
from tests.store.desk import TURNABLE_CLOCK, Room
from tests.store.server import StoreServer

pytestmark = pytest.mark.anyio

MOST_SAMPLES: Final = 20
"""How many samples without a store open the breaker at the very latest."""


async def test_the_public_is_told_that_coupons_are_issued(api: Caller) -> None:
    status = (await api.http.get("/v1/status")).json()
    since = status.pop("since")
    assert datetime.fromisoformat(since).tzinfo is not None
    assert status == {"issuance": "issuing", "reason": "", "retry_after_s": 0, "message": "Coupons are being issued."}


async def test_the_operator_opens_the_breaker_and_redemption_goes_on(api: Caller) -> None:
    await api.open()
    code, other = await api.code("ann"), await api.code("bob")
    forced = await api.override("forced_open")
    assert forced.status_code == 200
    assert forced.json() | {"since": ""} == {
        "mode": "forced_open",
        "issuance": "paused",
        "reason": "operator",
        "since": "",
        "epoch": 1,
        "override": {"actor": "local", "reason": "a drill", "expires_at": None},
    }
    status = (await api.http.get("/v1/status")).json()
    assert (status["issuance"], status["reason"]) == ("paused", "operator")
    assert status["retry_after_s"] > 0
    assert "stay valid" in status["message"]
    for refused in (await api.issue("eve"), await api.issue("ann"), await api.issue("eve", campaign="unheard-of")):
        assert refusal(refused) == (503, "issuance_paused")
        assert refused.json()["paused_by"] == "breaker"
        assert int(refused.headers["retry-after"]) > 0
    assert (await api.redeem(code)).status_code == 201
    held = (await api.redeem(other, hold=True)).json()["id"]
    assert (await api.settle("commit", held)).status_code == 200
    await api.override("forced_closed")
    again = await api.issue("ann")
    assert (again.status_code, again.headers["idempotency-replayed"], again.json()["code"]) == (201, "true", code)


async def test_those_who_are_sent_away_come_back_spread_over_the_ramp(api: Caller) -> None:
    await api.open()
    await api.override("forced_open", ttl_s=10)
    waits = [int((await api.issue(f"user-{number}")).headers["retry-after"]) for number in range(50)]
    assert min(waits) >= 10
    assert len(set(waits)) > 5


async def test_an_override_runs_out_and_issuance_recovers_by_the_ramp(api: Caller, room: Room, parts: Parts) -> None:
    await api.open()
    await api.override("forced_open", ttl_s=60)
    await room.clock.advance(60_000)
    await parts.breaker.tick()
    await room.clock.advance(5_000)
    for _ in range(2):
        await parts.breaker.tick()
    assert (await api.http.get("/v1/status")).json()["issuance"] == "recovering"
    answers = [await api.issue(f"user-{number}") for number in range(60)]
    assert {answer.status_code for answer in answers} == {201, 503}
    admitted = [answer.json()["user_id"] for answer in answers if answer.status_code == 201]
    assert all([(await api.issue(user, "second")).status_code == 201 for user in admitted])


async def test_the_operator_opens_one_campaigns_breaker_and_its_neighbours_are_served(api: Caller) -> None:
    await api.open()
    await api.open(id="summer", code_prefix="SUN")
    code = await api.code("ann")
    forced = (await api.override("forced_open", "spring", ttl_s=60)).json()
    assert (forced["mode"], forced["issuance"], forced["epoch"]) == ("forced_open", "paused", 1)
    assert datetime.fromisoformat(forced["override"]["expires_at"]) > datetime.fromisoformat(forced["since"])
    refused = await api.issue("eve")
    assert (refusal(refused), refused.json()["paused_by"]) == ((503, "issuance_paused"), "breaker")
    assert int(refused.headers["retry-after"]) >= 60
    assert (await api.issue("eve", campaign="summer")).status_code == 201
    assert (await api.redeem(code)).status_code == 201
    assert (await api.http.get("/v1/status")).json()["issuance"] == "issuing"
    assert (await api.override("forced_closed", "spring")).json()["epoch"] == 2
    assert (await api.issue("eve")).status_code == 201


async def test_what_is_said_of_all_campaigns_holds_beside_what_is_said_of_one(api: Caller) -> None:
    await api.open()
    await api.override("forced_closed", "spring")
    await api.override("forced_open")
    assert refusal(await api.issue()) == (503, "issuance_paused")
    await api.override("forced_closed")
    await api.override("forced_open", "spring")
    assert refusal(await api.issue()) == (503, "issuance_paused")


async def test_in_shadow_nobody_is_refused_and_it_is_counted_who_would_have_been(api: Caller) -> None:
    await api.open()
    await api.issue("user-0")
    await api.override("forced_open")
    shadow = (await api.override("shadow", ttl_s=60)).json()
    assert (shadow["mode"], shadow["issuance"]) == ("shadow", "issuing")
    assert (await api.http.get("/v1/status")).json()["issuance"] == "issuing"
    for number in range(3):
        assert (await api.issue(f"user-{number}")).status_code == 201
    text = await api.metrics()
    assert 'tidegate_breaker_shadow_refusals_total{campaign="spring"} 3.0' in text
    assert 'tidegate_breaker_state{state="open"} 1.0' in text


@pytest.mark.parametrize("campaign", ["unheard-of", "x" * 41])
async def test_an_unknown_campaign_has_no_breaker(api: Caller, parts: Parts, campaign: str) -> None:
    assert refusal(await api.override("forced_open", campaign)) == (404, "not_found")
    assert field_errors(await api.override("ajar", campaign))
    assert parts.breaker.campaigns == {}


async def test_no_more_campaigns_than_may_have_a_breaker_of_their_own(
    api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker_state, "MOST_CAMPAIGNS", 1)
    await api.open()
    await api.open(id="summer", code_prefix="SUN")
    await api.override("auto")
    assert (await api.override("forced_open", "spring")).status_code == 200
    assert refusal(await api.override("forced_open", "summer")) == (409, "too_many_breakers")
    assert (await api.issue(campaign="summer")).status_code == 201
    assert (await api.override("auto", "spring")).status_code == 200


async def test_every_transition_is_logged_and_kept_with_the_figures_that_caused_it(
    api: Caller, room: Room, log: list[EventDict]
) -> None:
    await api.open()
    await api.override("forced_open", "spring", ttl_s=60)
    entries: Any = await room.client.xrange(keys.BREAKER_EVENTS)
    ((_id, fields),) = entries
    kept = json.loads(fields[b"data"])
    assert fields[b"type"] == b"breaker.changed"
    assert kept | {"override_expires_at_ms": 0, "signals": {}} == {
        "campaign_id": "spring",
        "from": "closed",
        "to": "open",
        "reason": "operator",
        "epoch": 1,
        "mode": "forced_open",
        "actor": "local",
        "override_reason": "a drill",
        "override_expires_at_ms": 0,
        "signals": {},
    }
    (line,) = [line for line in log if line["event"] == "breaker changed"]
    assert {name: line[name] for name in kept} == kept


async def test_the_record_names_the_key_that_overrode_but_not_the_key(room: Room, store_url: str) -> None:
    del room
    keys_shown = ("a-long-key-of-ada", "a-long-key-of-mei")
    parts = Parts(settings(store_url, api_keys=keys_shown), TURNABLE_CLOCK)
    actors = []
    async with parts.running(), Caller(Door(fastapi_lane(parts), Doorkeeper(keys_shown))) as api:
        for key in keys_shown:
            api.http.headers["Authorization"] = f"Bearer {key}"
            await api.create()
            said = [(await api.override("forced_closed", campaign)).json() for campaign in (None, "spring")]
            actors.append([breaker["override"]["actor"] for breaker in said])
    assert actors == [[f"key-{sha256(key.encode()).hexdigest()[:12]}"] * 2 for key in keys_shown]


async def test_an_open_breaker_in_automatic_mode_stays_under_the_signals(api: Caller) -> None:
    await api.override("forced_closed")
    automatic = (await api.override("auto")).json()
    assert (automatic["mode"], automatic["issuance"]) == ("auto", "issuing")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"mode": "open"}, "mode"),
        ({"mode": "auto", "ttl_s": 0}, "ttl_s"),
        ({"mode": "auto", "ttl_s": 10**30}, "ttl_s"),
        ({"mode": "auto", "reason": ""}, "reason"),
        ({"mode": "auto", "actor": "me"}, "actor"),
    ],
)
async def test_a_malformed_override_changes_nothing(
    api: Caller, parts: Parts, body: dict[str, Any], field: str
) -> None:
    assert set(field_errors(await api.override(**body))) == {field}
    assert parts.breaker.record.epoch == 0


async def commands(room: Room) -> dict[str, int]:
    """How often each command has reached the store so far."""
    facts = await room.client.info("commandstats")
    return {name: facts[name]["calls"] for name in facts if name != "cmdstat_info"}


async def test_while_the_breaker_is_open_no_issue_reaches_the_store_nor_does_a_sign_of_life(
    room: Room, store_url: str
) -> None:
    parts = Parts(settings(store_url), TURNABLE_CLOCK)
    async with Caller(fastapi_lane(parts)) as api:
        await api.open()
        await api.override("forced_open")
        taken = await api.http.post("/v1/campaigns/spring/tickets", json={"user_id": "ann"})
        in_line = {"Idempotency-Key": "first", "Tidegate-Ticket": taken.json()["ticket"]}
        before = await commands(room)
        for number in range(20):
            assert (await api.issue(f"user-{number}")).status_code == 503
            assert (await api.http.post("/v1/campaigns/spring/coupons", headers=in_line)).status_code == 503
            assert (await api.http.get("/livez")).json() == {"status": "alive"}
            assert (await api.http.get("/v1/status")).status_code == 200
        assert await commands(room) == before
        assert (await api.http.get("/readyz")).json() == {"status": "ready"}
        assert await commands(room) != before
    async with parts.running():
        pass


async def test_the_log_has_a_line_for_each_request_with_its_id_and_route_but_not_with_what_it_named(
    api: Caller, log: list[EventDict]
) -> None:
    await api.open()
    log.clear()
    code = await api.code()
    read = await api.http.get(f"/v1/coupons/{code}")
    await api.http.get("/v1/coupons/QWEN-FORGED")
    await api.http.get("/v1/campaigns/spring/users/ann/coupons?secret=hunter2")
    lines = [(line["method"], line["route"], line["status"]) for line in log if line["event"] == "request"]
    assert lines == [
        ("GET", "/v1/coupons/{code}", 200),
        ("GET", "/v1/coupons/{code}", 404),
        ("GET", "/v1/campaigns/{campaign_id}/users/{user_id}/coupons", 200),
    ]
    assert read.headers["x-request-id"] in {line["request_id"] for line in log}
    assert [name for name in (code, "FORGED", "ann", "hunter2", "spring") if name in str(log)] == []


async def test_a_process_whose_store_hangs_lives_but_is_not_ready(own_store: StoreServer) -> None:
    parts = Parts(settings(own_store.url, group_commit={"store_timeout_ms": 200}))
    async with parts.running(), Caller(fastapi_lane(parts)) as api:
        await suspend(own_store)
        assert (await api.http.get("/livez")).status_code == 200
        assert refusal(await api.http.get("/readyz")) == (503, "not_ready")
        figures = await api.metrics()
        assert "tidegate_store_up 0.0" in figures
        assert "tidegate_issue_total" in figures


async def test_a_store_that_does_not_answer_opens_the_breaker(own_store: StoreServer) -> None:
    parts = Parts(settings(own_store.url, group_commit={"store_timeout_ms": 200}, breaker={}))
    async with parts.running(), Caller(fastapi_lane(parts)) as api:
        own_store.kill()
        for _ in range(MOST_SAMPLES):
            await parts.breaker.tick()
        status = (await api.http.get("/v1/status")).json()
        assert (status["issuance"], status["reason"]) == ("paused", "store_failures")
        assert reason(await api.issue()) == "issuance_paused"
        assert refusal(await api.http.get("/readyz")) == (503, "not_ready")
        assert refusal(await api.override("forced_closed")) == (503, "store_unavailable")
        own_store.start()
