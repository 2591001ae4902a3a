"""Codes that a merchant brings: taken whole or not at all, given out in their order, redeemed by their text."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service.api.parts import MAX_UPLOADS, Parts
from service.domain import imported_codes
from service.store.jobs import WORK_ON
from tests.api.caller import Caller, contents, field_errors, refusal
from tests.store.desk import Room
from tests.worker.test_long_work import long_work

pytestmark = pytest.mark.anyio

CODES = [f"ACME-{number * 7919 % 1000:03}" for number in range(10)]
CSV = "code\r\n" + "".join(f"{code}\r\n" for code in CODES)


async def send(api: Caller, file: str | bytes | AsyncIterator[bytes], campaign: str = "spring") -> httpx.Response:
    return await api.http.post(f"/v1/campaigns/{campaign}/imports", content=file)


async def judge(api: Caller, room: Room, file: str | bytes) -> dict[str, Any]:
    """The import of that file, after a worker has done its work."""
    sent = await send(api, file)
    assert sent.status_code == 202, sent.text
    for _ in range(10):
        await long_work(room).take_turn(sent.json()["id"])
    job: dict[str, Any] = (await api.http.get(f"/v1/jobs/{sent.json()['id']}")).json()
    return job


async def create(api: Caller, **changes: Any) -> None:
    created = await api.create(**({"codes": "imported", "code_prefix": "ACME"} | changes))
    assert created.json()["codes"] == "imported"


async def test_imported_codes_are_given_out_in_their_order_and_live_as_any_other(api: Caller, room: Room) -> None:
    await create(api)
    job = await judge(api, room, CSV)
    assert (job["kind"], job["status"], job["total"], job["done"], job["error"]) == (
        "import",
        "completed",
        10,
        10,
        None,
    )
    assert (await api.campaign())["max_coupons"] == 10
    assert (await api.tell("start")).status_code == 200
    assert [await api.code(f"user-{number}") for number in range(10)] == CODES
    assert refusal(await api.issue("late")) == (409, "sold_out")
    assert (await api.issue("user-3")).json()["code"] == CODES[3]
    redeemed = await api.redeem(CODES[0])
    assert (redeemed.status_code, redeemed.json()["code"]) == (201, CODES[0])
    assert (await api.settle("rollback", redeemed.json()["id"])).status_code == 200
    assert (await api.coupon(CODES[0]))["status"] == "issued"
    assert (await api.deactivate(CODES[1])).status_code == 200
    listed = (await api.http.get("/v1/campaigns/spring/users/user-2/coupons")).json()["coupons"]
    assert [coupon["code"] for coupon in listed] == [CODES[2]]
    assert CODES[9] in (await api.http.get("/v1/campaigns/spring/coupons.csv")).text
    told = [json.loads(line) for line in (await api.http.get("/v1/campaigns/spring/events")).text.splitlines()]
    assert [line["data"]["codes"] for line in told[:10]] == [[code] for code in CODES]


async def test_imported_codes_are_deactivated_by_list(api: Caller, room: Room) -> None:
    await create(api)
    await judge(api, room, CSV)
    await api.tell("start")
    await api.open(id="autumn", code_prefix="AC")
    await api.code()
    other = (await api.issue(campaign="autumn")).json()["code"]
    body = {"codes": [CODES[0], CODES[1], other], "reason": "leaked"}
    told = (await api.http.post("/v1/campaigns/spring/deactivations", json=body)).json()
    assert [coupon["outcome"] for coupon in told["coupons"]] == ["deactivated", "not_found", "not_found"]
    assert (await api.coupon(other))["status"] == "issued"


async def test_a_red_envelope_takes_a_code_for_every_share_or_none(api: Caller, room: Room) -> None:
    pot = {"kind": "red_envelope", "pot": 1_000, "shares": 11, "min_share": 1, "currency": "CNY"}
    await create(api, benefit=pot, max_coupons=11, budget={"amount": 1_000, "currency": "CNY"})
    job = await judge(api, room, CSV)
    assert (job["status"], job["error"]) == ("failed", "a red envelope needs a code for each of its shares")
    job = await judge(api, room, f"{CSV}ACME-LAST\n")
    assert (job["status"], (await api.campaign())["max_coupons"]) == ("completed", 11)


async def test_a_code_that_was_not_given_out_or_not_imported_is_not_found(api: Caller, room: Room) -> None:
    await create(api)
    await judge(api, room, CSV)
    await api.tell("start")
    await api.code()
    for code in (CODES[1], "ACME-999", "ACME", CODES[0].lower(), f"{CODES[0]}0", "X" * 65, "ACM%C3%89"):
        assert refusal(await api.redeem(code)) == (404, "not_found")
        assert refusal(await api.http.get(f"/v1/coupons/{code}")) == (404, "not_found")


async def test_computed_and_imported_codes_live_side_by_side(api: Caller, room: Room) -> None:
    await create(api)
    await judge(api, room, CSV)
    await api.tell("start")
    await api.open(id="autumn", code_prefix="AC")
    imported = await api.code()
    computed = (await api.issue(campaign="autumn")).json()["code"]
    for code, campaign in ((imported, "spring"), (computed, "autumn")):
        assert (await api.coupon(code))["campaign_id"] == campaign
        assert (await api.redeem(code)).status_code == 201


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("code\nACME-1\nACM-22\nACME-3\n\nACME-5\n", "line 3 does not begin with ACME; line 5 is not 4 to 64"),
        ("ACME-1\nACME-2\nACME-1\nACME-2\n", "line 3 is the same as line 1; line 4 is the same as line 2"),
        ('"ACME-1"\r\nACME-2,x\r\n', "line 2 is not 4 to 64"),
        (b"ACME-1\nACME-\xff\n", "line 2 is not 4 to 64"),
        ("ACME-1\n" + "x\n" * 50, "line 21 is not 4 to 64"),
    ],
)
async def test_one_bad_line_is_named_and_nothing_is_imported(
    api: Caller, room: Room, file: str | bytes, error: str
) -> None:
    await create(api)
    before = await contents(room)
    job = await judge(api, room, file)
    assert job["status"] == "failed"
    for part in error.split("; "):
        assert part in job["error"]
    after = await contents(room)
    assert {key: held for key, held in after.items() if not key.startswith((b"tg:{jobs}", b"rq:"))} == before
    assert refusal(await api.tell("start")) == (409, "illegal_transition")
    assert (await judge(api, room, CSV))["status"] == "completed"


async def test_what_cannot_be_a_file_of_codes_is_refused_at_the_door(
    api: Caller, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(api)
    before = await contents(room)
    for file, message in (
        ("", "has no codes"),
        ("code\n", "has no codes"),
        ("ACME-1\n" + "x" * 129 + "\n", "line 2 has more than 128 bytes"),
        ("x" * 100_000, "has a line of more than 128 bytes"),
    ):
        assert field_errors(await send(api, file)) == {"body": message}
    monkeypatch.setattr("service.api.imports.MAX_CODES", 3)
    assert refusal(await send(api, CSV)) == (413, "body_too_large")
    assert refusal(await send(api, CSV, "nowhere")) == (404, "not_found")
    assert await contents(room) == before


async def test_only_a_campaign_that_waits_for_codes_takes_them_and_once(api: Caller, room: Room) -> None:
    await api.create(id="autumn", code_prefix="AUT")
    assert refusal(await send(api, CSV, "autumn")) == (409, "codes_are_computed")
    await create(api)
    first, second = (await send(api, CSV)).json(), (await send(api, CSV)).json()
    for job in (first, second):
        for _ in range(5):
            await long_work(room).take_turn(job["id"])
    found = [(await api.http.get(f"/v1/jobs/{job['id']}")).json() for job in (first, second)]
    assert [(job["status"], job["error"]) for job in found] == [
        ("completed", None),
        ("failed", "the campaign's codes were imported before"),
    ]
    assert refusal(await send(api, CSV)) == (409, "imported_before")
    version = (await api.campaign())["version"]
    assert field_errors(await api.change(version, max_coupons=11)) == {
        "max_coupons": "must be at most 10: so many codes were imported"
    }


async def and_then_nothing() -> AsyncIterator[bytes]:
    yield CSV.encode()
    await asyncio.sleep(60)


async def test_files_that_wait_fill_the_store_up_to_a_bound_only(
    api: Caller, parts: Parts, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(api)
    monkeypatch.setattr("service.api.imports.MAX_WAITING", 1)
    waiting = (await send(api, CSV)).json()
    before = await contents(room)
    assert refusal(await send(api, CSV)) == (503, "too_many_jobs")
    monkeypatch.setattr("service.api.imports.MAX_WAITING", 2)
    monkeypatch.setattr("service.store.long_jobs.MAX_OPEN", 1)
    assert refusal(await send(api, CSV)) == (503, "too_many_jobs")
    monkeypatch.setattr("service.api.imports.SENT_WITHIN_S", 0.05)
    assert refusal(await send(api, and_then_nothing())) == (408, "sent_too_slowly")
    for _ in range(MAX_UPLOADS):
        await parts.import_places.acquire()
    assert refusal(await send(api, CSV)) == (503, "too_many_jobs")
    assert await contents(room) == before
    assert (await api.http.get(f"/v1/jobs/{waiting['id']}")).json()["status"] == "pending"


async def test_a_file_that_the_store_does_not_take_whole_leaves_nothing_there(
    api: Caller, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.api.imports.PAGE", 3)
    monkeypatch.setattr("service.store.imports.PAGE", 3)
    kept: list[bytes] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield "".join(f"{code}\n" for code in CODES[:6]).encode()
        kept.extend(await room.key_names())
        await room.client.config_set("maxmemory", 1)
        yield "".join(f"{code}\n" for code in CODES[6:]).encode()

    await create(api)
    before = await contents(room)
    try:
        assert (await send(api, pieces())).status_code == 503
    finally:
        await room.client.config_set("maxmemory", 0)
    assert any(name.startswith(b"tg:{spring:0}:import:") for name in kept)
    assert await contents(room) == before
    assert (await judge(api, room, CSV))["status"] == "completed"


async def test_a_campaign_does_not_start_before_its_codes_are_there(api: Caller) -> None:
    await create(api)
    assert refusal(await api.tell("start")) == (409, "illegal_transition")
    assert refusal(await api.issue()) == (409, "campaign_not_running")
    assert refusal(await api.redeem(CODES[0])) == (404, "not_found")


async def test_whoever_looks_before_the_codes_are_there_spoils_nothing(api: Caller, room: Room) -> None:
    await create(api)
    assert (await api.http.get("/v1/campaigns/spring/users/ann/coupons")).json() == {"coupons": []}
    await judge(api, room, CSV)
    await api.tell("start")
    assert await api.code() == CODES[0]
    assert (await api.redeem(CODES[0])).status_code == 201
    assert (await api.coupon(CODES[0]))["status"] == "redeemed"


async def test_a_file_of_many_pages_is_taken_in_piece_by_piece(
    api: Caller, parts: Parts, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("service.store.imports", "service.api.imports", "worker.importing"):
        monkeypatch.setattr(f"{module}.PAGE", 3)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(CSV), 5):
            yield CSV[at : at + 5].encode()

    await create(api)
    sent = (await send(api, pieces())).json()
    assert [(job.func_name, job.args) for job in parts.jobs.rq.get_jobs()] == [(WORK_ON, [sent["id"]])]
    for _ in range(10):
        await long_work(room).take_turn(sent["id"])
    await api.tell("start")
    assert [await api.code(f"user-{number}") for number in range(10)] == CODES


def test_a_line_bound_leaves_room_for_the_longest_code() -> None:
    assert 64 + len('"",\r') < imported_codes.MAX_LINE_BYTES
