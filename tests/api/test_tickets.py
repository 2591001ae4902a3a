"""The waiting room over HTTP: a ticket keeps a place through a pause, and passes once, ahead of newcomers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api.app import fastapi_lane
from service.api.parts import Parts
from service.domain.tickets import Ticket, TicketBook
from service.domain.waiting_room import GRACE_MS
from tests.api.caller import PATIENT, Caller, contents, field_errors, refusal, settings
from tests.api.process import running_api
from tests.store.desk import TURNABLE_CLOCK, Room

pytestmark = pytest.mark.anyio

SLOW = {"per_second": 2, "burst": 100}
"""Two places a second, once the ramp is over."""
PATIENCE = 600
RAMP_MS = PATIENT.ramp_ms


@pytest.fixture
async def parts(room: Room, store_url: str) -> AsyncIterator[Parts]:
    """The parts of an API whose rooms are turned by the test alone."""
    del room
    parts = Parts(settings(store_url), TURNABLE_CLOCK)
    await parts.breaker.tick()
    yield parts
    async with parts.running():
        pass


@pytest.fixture
async def api(parts: Parts) -> AsyncIterator[Caller]:
    async with Caller(fastapi_lane(parts)) as caller:
        yield caller


async def take(api: Caller, user: str = "ann", key: str | None = None, campaign: str = "spring") -> httpx.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return await api.http.post(f"/v1/campaigns/{campaign}/tickets", json={"user_id": user}, headers=headers)


async def ticket_of(api: Caller, user: str = "ann", key: str | None = None) -> str:
    taken = await take(api, user, key)
    assert taken.status_code == 201, taken.text
    assert taken.headers["location"] == f"/v1/tickets/{taken.json()['ticket']}"
    return str(taken.json()["ticket"])


async def stands(api: Caller, ticket: str) -> dict[str, Any]:
    answer = await api.http.get(f"/v1/tickets/{ticket}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers.get("retry-after", "0") == str(body["retry_after_s"])
    assert answer.headers["cache-control"] == "no-store"
    return body


async def issue(
    api: Caller, ticket: str, user: str = "ann", key: str = "first", campaign: str = "spring"
) -> httpx.Response:
    headers = {b"idempotency-key": key.encode(), b"tidegate-ticket": ticket.encode("latin-1")}
    return await api.http.post(f"/v1/campaigns/{campaign}/coupons", json={"user_id": user}, headers=headers)


async def pass_time(room: Room, parts: Parts, seconds: float) -> None:
    """Time passes, and the breaker and the rooms are turned meanwhile as often as they would be."""
    for _ in range(round(2 * seconds)):
        await room.clock.advance(500)
        await parts.breaker.tick()
        await parts.waiting_rooms.tick()


async def test_a_ticket_passes_when_its_time_has_come_and_gives_one_coupon(
    api: Caller, parts: Parts, room: Room
) -> None:
    await api.open(issue_rate=SLOW)
    await api.tell("pause")
    tickets = {user: await ticket_of(api, user) for user in ("ann", "bob", "eve")}
    waiting = await stands(api, tickets["eve"])
    assert (waiting["status"], waiting["position"], waiting["admitted_until"]) == ("waiting", 3, None)
    assert datetime.fromisoformat(waiting["expected_at"]).timestamp() * 1000 > room.clock.now_ms
    assert waiting["retry_after_s"] > 0
    early = await issue(api, tickets["ann"])
    assert refusal(early) == (503, "ticket_not_due")
    assert (early.json()["position"], int(early.headers["retry-after"]) > 0) == (1, True)

    await api.tell("resume")
    await parts.waiting_rooms.tick()
    assert [(await stands(api, ticket))["position"] for ticket in tickets.values()] == [1, 2, 3]
    while (await stands(api, tickets["ann"]))["status"] == "waiting":
        await pass_time(room, parts, 0.5)
    admitted = await stands(api, tickets["ann"])
    assert datetime.fromisoformat(admitted["admitted_until"]).timestamp() * 1000 == room.clock.now_ms + GRACE_MS
    assert (await stands(api, tickets["bob"]))["position"] == 1
    assert refusal(await api.issue("a-newcomer")) == (503, "issuance_paused")
    first = await issue(api, tickets["ann"])
    again = await issue(api, tickets["ann"], key="another")
    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")
    assert (await stands(api, tickets["ann"]))["status"] == "used"
    assert refusal(await issue(api, tickets["bob"], "bob")) == (503, "ticket_not_due")
    await pass_time(room, parts, 15)
    assert (await issue(api, tickets["bob"], "bob")).status_code == 201
    assert (await api.campaign())["counters"]["issued"] == 2


async def test_a_newcomer_is_told_to_come_after_those_who_wait_and_joins_them_with_a_ticket(
    api: Caller, parts: Parts, room: Room
) -> None:
    await api.open(issue_rate=SLOW)
    await api.issue("old-friend")
    await api.tell("pause")
    for number in range(20):
        await ticket_of(api, f"user-{number}")
    await api.tell("resume")
    await pass_time(room, parts, 1)
    newcomer = await api.issue("newcomer")
    assert (refusal(newcomer), newcomer.json()["paused_by"]) == ((503, "issuance_paused"), "waiting_room")
    assert int(newcomer.headers["retry-after"]) >= 15
    assert (await stands(api, await ticket_of(api, "newcomer")))["position"] == 21
    replayed = await api.issue("old-friend")
    assert (replayed.status_code, replayed.headers["idempotency-replayed"]) == (201, "true")
    await pass_time(room, parts, 30)
    assert (await api.issue("newcomer", key="without a ticket")).status_code == 201


async def test_a_ticket_taken_for_a_key_stands_for_that_very_request(api: Caller, parts: Parts, room: Room) -> None:
    await api.open()
    code = await api.code("ann", "first")
    await api.tell("pause")
    ticket = await ticket_of(api, "ann", "first")
    fresh = await ticket_of(api, "ann", "second")
    assert (await issue(api, ticket)).json()["code"] == code
    await api.tell("resume")
    await pass_time(room, parts, 2)
    assert (await stands(api, ticket))["status"] == "used"
    issued = await issue(api, fresh, key="second")
    assert (issued.status_code, "idempotency-replayed" in issued.headers) == (201, False)
    without_ticket = await api.issue("ann", "second")
    assert without_ticket.json() == issued.json()


async def test_while_nobody_waits_one_is_told_to_go_straight_in(api: Caller, room: Room) -> None:
    await api.open()
    before = await contents(room)
    taken = await take(api)
    assert (taken.status_code, taken.json()["status"], taken.json()["ticket"]) == (200, "admitted", None)
    assert (taken.json()["position"], taken.json()["retry_after_s"]) == (0, 0)
    assert await contents(room) == before


async def test_the_breakers_pause_has_a_waiting_room_too_and_a_ticket_outranks_the_cohort(
    api: Caller, parts: Parts, room: Room
) -> None:
    await api.open()
    await api.override("forced_open", ttl_s=10)
    users = [f"user-{number}" for number in range(40)]
    tickets = {user: await ticket_of(api, user) for user in users}
    expected_at = datetime.fromisoformat((await stands(api, tickets["user-0"]))["expected_at"])
    assert expected_at.timestamp() * 1000 >= room.clock.now_ms + 10_000
    assert refusal(await issue(api, tickets["user-0"], "user-0")) == (503, "issuance_paused")
    await room.clock.advance(10_000)
    await parts.breaker.tick()
    await room.clock.advance(5_000)
    for _ in range(2):
        await parts.breaker.tick()
    assert (await api.http.get("/v1/status")).json()["issuance"] == "recovering"
    await pass_time(room, parts, 3)
    assert {(await issue(api, ticket, user)).status_code for user, ticket in tickets.items()} == {201}
    refused = [user for user in users if not parts.breaker.admits("spring", user)]
    assert refused
    assert refusal(await api.issue(refused[0], "another")) == (503, "issuance_paused")


@pytest.mark.parametrize("seen", [True, False])
async def test_whoever_shows_his_ticket_in_a_pause_and_comes_back_when_he_is_told_keeps_his_place(
    api: Caller, parts: Parts, room: Room, seen: bool
) -> None:
    await api.open()
    await api.override("forced_open", ttl_s=10)
    ticket = await ticket_of(api)
    for _stranger in range(5_000):
        parts.breaker.retry_after_s("spring")
    if not seen:
        # As in a process that has just started.
        parts.waiting_rooms.lines.clear()
    answer = await issue(api, ticket)
    assert refusal(answer) == (503, "issuance_paused")
    while answer.status_code == 503:
        await pass_time(room, parts, int(answer.headers["retry-after"]))
        answer = await issue(api, ticket)
    assert answer.status_code == 201, answer.text


async def test_a_place_that_was_called_and_not_used_is_gone_but_its_coupon_would_not_be(
    api: Caller, parts: Parts, room: Room
) -> None:
    await api.open()
    await api.tell("pause")
    late, used = await ticket_of(api, "ann"), await ticket_of(api, "bob")
    await api.tell("resume")
    await pass_time(room, parts, 3)
    issued = await issue(api, used, "bob")
    await pass_time(room, parts, GRACE_MS / 1000)
    assert (await stands(api, late))["status"] == "expired"
    assert refusal(await issue(api, late)) == (410, "ticket_expired")
    await pass_time(room, parts, RAMP_MS / 1000)
    assert parts.waiting_rooms.lines == {}
    assert 'tidegate_waiting_room_abandoned_total{campaign="spring"} 1.0' in await api.metrics()
    assert (await issue(api, used, "bob")).json() == issued.json()
    assert (await stands(api, used))["status"] == "used"
    assert refusal(await issue(api, late)) == (410, "ticket_expired")
    assert (await api.issue("ann")).status_code == 201


async def test_a_place_is_used_once_by_the_coupon_that_it_gives_however_often_its_holder_asks(
    api: Caller, parts: Parts, room: Room
) -> None:
    await api.open(user_rate={"per_second": 0.1, "burst": 1})
    await api.issue("ann", "another")
    await api.tell("pause")
    ticket, *_never_used = [await ticket_of(api, user) for user in ("ann", "bob", "eve")]
    await api.tell("resume")
    await pass_time(room, parts, 3)
    assert refusal(await issue(api, ticket)) == (429, "rate_limited")
    await pass_time(room, parts, 10)
    assert [(await issue(api, ticket)).status_code for _ in range(3)] == [201] * 3
    await pass_time(room, parts, GRACE_MS / 1000)
    assert 'tidegate_waiting_room_abandoned_total{campaign="spring"} 2.0' in await api.metrics()


async def test_no_ticket_but_ones_own_passes(api: Caller, parts: Parts, room: Room) -> None:
    await api.open()
    await api.open(id="autumn", code_prefix="FALL")
    await api.tell("pause")
    ticket = await ticket_of(api, "ann")
    await api.tell("resume")
    await pass_time(room, parts, 3)
    stranger = TicketBook(b"another secret").seal(Ticket("spring", 0, bytes(8), "ann"))
    before = await contents(room)
    for forged in (ticket[:-1], ticket + "A", ticket.swapcase(), ticket + "=", stranger, "x", "Å", "A" * 5_000, "%00"):
        assert refusal(await issue(api, forged)) == (400, "ticket_invalid"), forged
        assert (await api.http.get(f"/v1/tickets/{forged.replace('%', '%25')}")).status_code in (404, 422)
    assert refusal(await issue(api, ticket, "bob")) == (403, "ticket_not_yours")
    assert refusal(await issue(api, ticket, campaign="autumn")) == (403, "ticket_not_yours")
    assert refusal(await issue(api, ticket, campaign="unheard-of")) == (404, "not_found")
    assert await contents(room) == before
    assert (await issue(api, ticket)).status_code == 201


@pytest.mark.parametrize("position", range(0, 120, 7))
def test_a_ticket_changed_by_one_character_is_none(position: int) -> None:
    book = TicketBook(b"a secret of the tests")
    ticket = Ticket("spring-festival", 123_456, bytes(range(8)), "ann@example.com")
    sealed = book.seal(ticket)
    assert book.open(sealed) == ticket
    at = position % len(sealed)
    for other in "AB-_=. \n":
        changed = sealed[:at] + other + sealed[at + 1 :]
        assert changed == sealed or book.open(changed) is None


@pytest.mark.parametrize("body", [{}, {"user_id": "a b"}, {"user_id": "ann", "extra": 1}, {"user_id": None}])
async def test_a_malformed_wish_for_a_place_takes_none(api: Caller, room: Room, body: dict[str, Any]) -> None:
    await api.open()
    await api.tell("pause")
    before = await contents(room)
    assert field_errors(await api.http.post("/v1/campaigns/spring/tickets", json=body))
    assert refusal(await take(api, campaign="unheard-of")) == (404, "not_found")
    assert (await take(api, key="k" * 256)).status_code == 422
    assert await contents(room) == before


async def test_a_campaign_that_is_not_running_has_no_line(api: Caller) -> None:
    await api.open()
    await api.tell("stop")
    refused = await take(api)
    assert (refusal(refused), refused.json()["campaign_status"]) == ((409, "campaign_not_running"), "stopped")


@pytest.mark.parametrize("by", ["operator", "breaker"])
async def test_a_place_taken_in_a_pause_before_the_campaigns_start_is_called_when_it_starts(
    api: Caller, parts: Parts, room: Room, by: str
) -> None:
    starts_at = await open_in_a_minute(api, room)
    await (api.tell("pause") if by == "operator" else api.override("forced_open"))
    ticket = await ticket_of(api)
    await (api.tell("resume") if by == "operator" else api.override("forced_closed"))
    await pass_time(room, parts, 40)
    waiting = await stands(api, ticket)
    assert (waiting["status"], waiting["position"]) == ("waiting", 1)
    assert starts_at < datetime.fromisoformat(waiting["expected_at"]) < starts_at + timedelta(seconds=1)
    assert refusal(await issue(api, ticket)) == (503, "ticket_not_due")
    await pass_time(room, parts, 21)
    assert (await issue(api, ticket)).status_code == 201


async def test_nobody_begins_a_line_before_the_campaigns_start(api: Caller, parts: Parts, room: Room) -> None:
    await open_in_a_minute(api, room)
    refused = await take(api)
    assert (refusal(refused), refused.headers["retry-after"]) == ((409, "campaign_not_running"), "60")
    await pass_time(room, parts, 61)
    assert not parts.waiting_rooms.lines
    assert (await api.issue("bob")).status_code == 201


async def open_in_a_minute(api: Caller, room: Room) -> datetime:
    starts_at = datetime.fromtimestamp(room.clock.now_ms / 1000 + 60, UTC)
    ends_at = starts_at + timedelta(hours=1)
    await api.open(issue_window={"starts_at": starts_at.isoformat(), "ends_at": ends_at.isoformat()})
    return starts_at


async def test_without_a_store_there_are_no_tickets_and_a_clear_word(tmp_path: Path) -> None:
    parts = Parts(settings(f"unix://{tmp_path / 'nowhere'}"))
    ticket = parts.tickets.seal(Ticket("spring", 0, bytes(8), "ann"))
    async with Caller(fastapi_lane(parts)) as api:
        answers = await take(api), await issue(api, ticket), await api.http.get(f"/v1/tickets/{ticket}")
        assert [refusal(answer) for answer in answers] == [(503, "store_unavailable")] * 3
        assert ["the same ticket" in answer.json()["detail"] for answer in answers] == [False, True, False]


async def test_a_ticket_from_one_process_passes_at_another_ahead_of_newcomers_there(
    api: Caller, parts: Parts, room: Room, store_url: str
) -> None:
    await api.open(issue_rate=SLOW)
    await api.tell("pause")
    tickets = {user: await ticket_of(api, user) for user in ("ann", "bob", "eve")}
    other = Parts(settings(store_url), TURNABLE_CLOCK)
    async with Caller(fastapi_lane(other)) as there:
        await other.waiting_rooms.tick()
        await api.tell("resume")
        await other.waiting_rooms.tick()
        assert (await there.issue("newcomer")).json()["paused_by"] == "waiting_room"
        await pass_time(room, other, 6)
        await parts.waiting_rooms.tick()
        assert (await issue(there, tickets["ann"])).status_code == 201
        assert (await stands(api, tickets["ann"]))["status"] == "used"
        assert (await there.issue("newcomer")).status_code == 503
    async with other.running():
        pass


async def test_tickets_pass_in_a_running_service_and_a_listener_does_not_keep_it_from_stopping(
    store_url: str, tmp_path: Path
) -> None:
    users = [f"user-{number}" for number in range(30)]
    validity = {"timezone": "UTC", "duration": "P7D"}
    async with AsyncExitStack() as staying:
        with running_api(store_url, tmp_path / "api.log") as service:
            http = await staying.enter_async_context(httpx.AsyncClient(base_url=service.url, trust_env=False))
            api = Caller.over(http)
            await api.open(id="summer", code_prefix="SUN", validity=validity, issue_rate={"per_second": 99, "burst": 9})
            stream = await staying.enter_async_context(http.stream("GET", "/v1/status/stream?campaign_id=summer"))
            lines = stream.aiter_lines()
            assert '"issuing"' in await next_data(lines)
            await api.tell("pause", "summer")
            assert '"operator"' in await next_data(lines)
            taken = [(await take(api, user, campaign="summer")).json() for user in users]
            assert [ticket["position"] for ticket in taken] == list(range(1, 31))
            await api.tell("resume", "summer")
            assert refusal(await api.issue("newcomer", campaign="summer")) == (503, "issuance_paused")
            for user, ticket in zip(users, taken, strict=True):
                answer = await issue(api, ticket["ticket"], user, campaign="summer")
                for _ in range(PATIENCE):
                    if answer.status_code == 201:
                        break
                    assert refusal(answer) == (503, "ticket_not_due")
                    await asyncio.sleep(0.05)
                    answer = await issue(api, ticket["ticket"], user, campaign="summer")
                assert answer.json()["user_id"] == user
        # The service has stopped, and the stream has an end.
        assert [line async for line in lines if line.startswith(":")] == []
    assert "graceful shutdown exceeded" not in service.log.read_text()


async def next_data(lines: AsyncIterator[str]) -> str:
    """The data of a stream's next event."""
    return await anext(line async for line in lines if line.startswith("data:"))
