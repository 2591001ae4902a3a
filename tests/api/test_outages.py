"""Outages over HTTP: recorded once, refused where they cannot be, and given back to coupons where the clock stops."""

import pytest

from service.domain import extension
from service.store import outages
from tests.api.caller import CAMPAIGN, Caller, contents, field_errors, refusal
from tests.store.desk import LAUNCH, Room

pytestmark = pytest.mark.anyio

HOUR = 3_600_000
FROM, TO = "2026-02-06T07:50:00.000+08:00", "2026-02-06T08:00:00.000+08:00"


@pytest.fixture(autouse=True)
async def later(room: Room) -> None:
    await room.clock.set(LAUNCH + HOUR)


async def record(api: Caller, begin: str = FROM, end: str = TO) -> int:
    answer = await api.http.post("/v1/outages", json={"from": begin, "to": end, "reason": "tills down"})
    assert answer.status_code in (201, 409, 422)
    return answer.status_code


async def test_an_outage_is_recorded_and_listed(api: Caller) -> None:
    answer = await api.http.post("/v1/outages", json={"from": FROM, "to": TO, "reason": "tills down"})
    assert answer.status_code == 201
    assert answer.json() == {
        "number": 1,
        "from": "2026-02-05T23:50:00.000+00:00",
        "to": "2026-02-06T00:00:00.000+00:00",
        "reason": "tills down",
        "actor": "local",
    }
    assert (await api.http.get("/v1/outages")).json() == {"outages": [answer.json()]}


async def test_no_time_is_recorded_twice(api: Caller, room: Room) -> None:
    await record(api)
    before = await contents(room)
    for begin, end in ((FROM, TO), ("2026-02-06T07:59:59.999+08:00", "2026-02-06T08:01:00+08:00")):
        again = await api.http.post("/v1/outages", json={"from": begin, "to": end, "reason": "again"})
        assert (refusal(again), again.json()["number"]) == ((409, "outage_overlaps"), 1)
    assert await contents(room) == before
    assert await record(api, TO, "2026-02-06T08:01:00+08:00") == 201


@pytest.mark.parametrize(
    ("begin", "end", "message"),
    [
        (TO, FROM, "must be later than from"),
        (FROM, FROM, "must be later than from"),
        (FROM, "2026-02-06T08:46:00.001+08:00", "is in the future: record an outage when it is over"),
        ("2025-12-01T00:00:00Z", TO, f"is more than {extension.MAX_OUTAGE_DAYS} days after from"),
    ],
)
async def test_a_time_that_cannot_be_is_refused(api: Caller, room: Room, begin: str, end: str, message: str) -> None:
    before = await contents(room)
    answer = await api.http.post("/v1/outages", json={"from": begin, "to": end, "reason": "tills down"})
    assert field_errors(answer) == {"to": message}
    assert await contents(room) == before


async def test_there_are_only_so_many_outages(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outages, "MAX_OUTAGES", 1)
    await record(api)
    answer = await api.http.post("/v1/outages", json={"from": TO, "to": "2026-02-06T08:01:00+08:00", "reason": "more"})
    assert refusal(answer) == (409, "too_many_outages")


async def test_a_campaign_that_stops_the_clock_says_so(api: Caller) -> None:
    await api.open(validity=CAMPAIGN["validity"] | {"stop_the_clock": True})
    assert (await api.campaign())["validity"]["stop_the_clock"] is True
