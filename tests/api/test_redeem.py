"""Redemption over HTTP: at once or held first, taken back, refused with its reason, and the same order again."""

from typing import Any

import pytest

from tests.api.caller import Caller, contents, field_errors, refusal
from tests.store.desk import EXPIRY, LAUNCH, Room

pytestmark = pytest.mark.anyio

NOW = "2026-02-06T07:46:00.000+08:00"


async def test_a_redeemed_coupon_is_a_whole_redemption_once(api: Caller) -> None:
    await api.open()
    code = await api.code()
    redeemed = await api.redeem(code)
    identity = redeemed.json()["id"]
    assert redeemed.status_code == 201
    assert redeemed.json() == {
        "id": identity,
        "code": code,
        "merchant_id": "tea-house",
        "order_id": "order-1",
        "status": "committed",
        "discount_amount": 2500,
        "at": NOW,
        "expires_at": None,
    }
    assert identity.startswith("rd-QWEN-")
    assert (await api.coupon(code))["status"] == "redeemed"
    counters = (await api.campaign())["counters"]
    assert (counters["issued"], counters["outstanding"], counters["redeemed"]) == (1, 0, 1)
    for other in (await api.redeem(code, "order-2"), await api.redeem(code, merchant_id="cinema")):
        assert refusal(other) == (409, "already_redeemed")
        assert "retry-after" not in other.headers


@pytest.mark.parametrize("hold", [False, True])
async def test_the_same_order_again_gets_its_first_answer(api: Caller, room: Room, hold: bool) -> None:
    await api.open(merchant_rate={"per_second": 0.001, "burst": 1})
    code = await api.code()
    first = await api.redeem(code, hold=hold)
    before = await contents(room)
    await room.clock.advance(1000)
    again = await api.redeem(code.lower().replace("-", ""), hold=hold)
    assert (again.status_code, again.content) == (201, first.content)
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    assert await contents(room) == before


@pytest.mark.parametrize(("amount", "discount"), [(None, 2500), (2499, 2499), (2500, 2500), (1, 1), (10**14, 2500)])
async def test_no_more_comes_off_an_order_than_it_amounts_to(api: Caller, amount: int | None, discount: int) -> None:
    await api.open()
    redeemed = await api.redeem(await api.code(), order_amount=amount)
    assert redeemed.json()["discount_amount"] == discount


@pytest.mark.parametrize(
    ("body", "expires_at"),
    [
        ({}, "2026-02-06T08:01:00.000+08:00"),
        ({"hold_for": "PT90S"}, "2026-02-06T07:47:30.000+08:00"),
        ({"hold_for": "P1D"}, "2026-02-07T07:46:00.000+08:00"),
    ],
)
async def test_a_held_coupon_is_reserved_until_the_hold_lapses(
    api: Caller, room: Room, body: dict[str, Any], expires_at: str
) -> None:
    await api.open()
    code = await api.code()
    held = await api.redeem(code, hold=True, **body)
    assert (held.status_code, held.json()["status"], held.json()["expires_at"]) == (201, "reserved", expires_at)
    assert (await api.coupon(code))["status"] == "reserved"
    assert (await api.campaign())["counters"]["reserved"] == 1
    await room.clock.advance(30_500)
    elsewhere = await api.redeem(code, "order-2")
    assert refusal(elsewhere) == (409, "reserved_elsewhere")
    assert int(elsewhere.headers["retry-after"]) > 0
    await room.clock.advance(86_400_000)
    assert (await api.redeem(code, "order-2")).status_code == 201


async def test_whoever_releases_what_has_lapsed_is_told_of_no_end_any_more(api: Caller, room: Room) -> None:
    await api.open()
    held = await api.redeem(await api.code(), hold=True, hold_for="PT1M")
    await room.clock.advance(60_000)
    released = await api.settle("release", held.json()["id"])
    assert (released.status_code, released.json()["status"]) == (200, "released")
    assert released.json()["expires_at"] is None


@pytest.mark.parametrize(
    ("story", "verb", "status", "coupon"),
    [
        (["hold"], "commit", "committed", "redeemed"),
        (["hold", "commit"], "commit", "committed", "redeemed"),
        (["hold"], "release", "released", "issued"),
        (["hold", "release"], "release", "released", "issued"),
        (["redeem"], "commit", "committed", "redeemed"),
        (["redeem"], "rollback", "rolled_back", "issued"),
        (["hold", "commit"], "rollback", "rolled_back", "issued"),
        (["redeem", "rollback"], "rollback", "rolled_back", "issued"),
    ],
)
async def test_a_redemption_goes_through_its_life_and_a_repeat_changes_nothing(
    api: Caller, story: list[str], verb: str, status: str, coupon: str
) -> None:
    await api.open()
    code = await api.code()
    first, *later = story
    redemption = (await api.redeem(code, hold=first == "hold")).json()
    for step in later:
        await api.settle(step, redemption["id"])
    settled = await api.settle(verb, redemption["id"])
    assert (settled.status_code, settled.json()) == (200, redemption | {"status": status, "expires_at": None})
    assert (await api.coupon(code))["status"] == coupon


@pytest.mark.parametrize(
    ("story", "verb", "status"),
    [
        (["hold"], "rollback", "reserved"),
        (["redeem"], "release", "committed"),
        (["hold", "release"], "commit", "released"),
        (["redeem", "rollback"], "commit", "rolled_back"),
        (["hold", "release", "other order"], "release", "superseded"),
    ],
)
async def test_what_the_life_of_a_redemption_forbids_is_refused(
    api: Caller, room: Room, story: list[str], verb: str, status: str
) -> None:
    await api.open()
    code = await api.code()
    first, *later = story
    redemption_id = (await api.redeem(code, hold=first == "hold")).json()["id"]
    for step in later:
        await (api.redeem(code, "order-2") if step == "other order" else api.settle(step, redemption_id))
    before = await contents(room)
    refused = await api.settle(verb, redemption_id)
    assert refusal(refused) == (409, "wrong_redemption_status")
    assert refused.json()["redemption_status"] == status
    assert await contents(room) == before


async def test_a_coupon_taken_back_can_be_redeemed_again_under_another_redemption(api: Caller) -> None:
    await api.open()
    code = await api.code()
    first = (await api.redeem(code)).json()["id"]
    await api.settle("rollback", first)
    second = await api.redeem(code)
    assert (second.status_code, "idempotency-replayed" in second.headers) == (201, False)
    assert second.json()["id"] != first


async def test_a_coupon_is_redeemed_within_its_validity_only(api: Caller, room: Room) -> None:
    starts_at = "2026-02-07T00:00:00.000+08:00"
    rule = {"timezone": "Asia/Shanghai", "starts_at": starts_at, "expires_at": "2026-02-23T23:59:59.999+08:00"}
    await api.open(validity=rule)
    code, late = await api.code("ann"), await api.code("bob")
    early = await api.redeem(code)
    assert refusal(early) == (409, "not_yet_valid")
    assert (early.json()["starts_at"], "retry-after" in early.headers) == ("2026-02-06T16:00:00.000+00:00", False)
    await room.clock.set(EXPIRY - 1)
    assert (await api.redeem(code)).status_code == 201
    await room.clock.set(EXPIRY)
    before = await contents(room)
    for refused in (await api.redeem(late), await api.deactivate(late)):
        assert refusal(refused) == (410, "expired")
        assert refused.json()["expired_at"] == "2026-02-23T15:59:59.999+00:00"
    assert await contents(room) == before
    assert (await api.coupon(late))["status"] == "expired"


async def test_a_deactivated_coupon_is_worth_nothing_and_its_money_returns(api: Caller) -> None:
    await api.open()
    code = await api.code()
    for _ in range(2):
        deactivated = await api.deactivate(code)
        assert (deactivated.status_code, deactivated.json()["status"]) == (200, "deactivated")
    assert deactivated.json() == await api.coupon(code)
    counters = (await api.campaign())["counters"]
    assert (counters["deactivated"], counters["budget_remaining"]) == (1, 10**9)
    assert refusal(await api.redeem(code)) == (409, "deactivated")


async def test_a_coupon_in_use_is_not_deactivated(api: Caller) -> None:
    await api.open()
    code = await api.code()
    held = await api.redeem(code, hold=True)
    assert refusal(await api.deactivate(code)) == (409, "reserved_elsewhere")
    await api.settle("commit", held.json()["id"])
    assert refusal(await api.deactivate(code)) == (409, "already_redeemed")


async def test_an_order_too_small_and_a_merchant_too_busy_are_refused(api: Caller, room: Room) -> None:
    benefit = {"kind": "amount", "amount": 2500, "currency": "CNY", "min_order_amount": 10_000}
    await api.open(benefit=benefit, merchant_rate={"per_second": 0.5, "burst": 1})
    code, other = await api.code("ann"), await api.code("bob")
    small = await api.redeem(code, order_amount=9_999)
    assert refusal(small) == (409, "order_too_small")
    assert small.json()["min_order_amount"] == 10_000
    assert (await api.redeem(code, order_amount=10_000)).status_code == 201
    before = await contents(room)
    busy = await api.redeem(other, order_amount=10_000)
    assert refusal(busy) == (429, "merchant_busy")
    assert (busy.headers["retry-after"], busy.headers["ratelimit-policy"], busy.headers["ratelimit"]) == (
        "2",
        '"merchant";q=1;w=2',
        '"merchant";r=0;t=2',
    )
    assert await contents(room) == before
    assert (await api.redeem(other, order_amount=10_000, merchant_id="cinema")).status_code == 201


async def test_a_guessed_code_or_redemption_learns_nothing(api: Caller, room: Room) -> None:
    await api.open()
    code = await api.code()
    redemption_id = (await api.redeem(code, hold=True)).json()["id"]
    before = await contents(room)
    swapped = code[:-1] + ("A" if code[-1] != "A" else "B")
    codes = [swapped, code.replace("QWEN", "NEWQ"), code[:-1], code + "0", "x", "🧧", "%00", "Q" * 5_000, "QWEN-" * 4]
    identities = [redemption_id[:-1], redemption_id[:-1] + "_", redemption_id + "0", "rd-QWEN-", "rd", code, "🧧"]
    answers = [
        *[await api.http.get(f"/v1/coupons/{guess}") for guess in codes],
        *[await api.redeem(guess) for guess in codes],
        *[await api.deactivate(guess) for guess in codes],
        *[await api.settle(verb, guess) for guess in identities for verb in ("commit", "release", "rollback")],
    ]
    assert {refusal(answer) for answer in answers} == {(404, "not_found")}
    assert len({answer.content for answer in answers}) == 1
    assert await contents(room) == before


async def test_a_hold_is_bounded_and_goes_with_hold(api: Caller, room: Room) -> None:
    await api.open()
    code = await api.code()
    assert room.clock.now_ms == LAUNCH
    for text in ("PT0S", "P2D", "PT24H1S", "P1M", "15m", "-PT1S", "PT1.5S", ""):
        assert set(field_errors(await api.redeem(code, hold=True, hold_for=text))) == {"hold_for"}, text
    assert field_errors(await api.redeem(code, hold=True, hold_for="P2D")) == {
        "hold_for": "must be between PT1S and PT24H"
    }
    assert field_errors(await api.redeem(code, hold_for="PT1M")) == {"hold_for": "goes with hold"}
    assert set(field_errors(await api.redeem(code, hold="yes", hold_for="PT1M"))) == {"hold"}
