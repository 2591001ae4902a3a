"""Benefits, limits, quotas and deactivations as callers of the API see them."""

from typing import Any

import pytest

from tests.api.caller import Caller, contents, field_errors, reason, refusal
from tests.store.desk import Room

pytestmark = pytest.mark.anyio

PERCENT = {"kind": "percent", "percent": 20, "max_amount": 2500, "currency": "CNY", "min_order_amount": 0}
ENVELOPE = {
    **{"kind": "red_envelope", "pot": 1000, "shares": 3, "min_share": 5},
    **{"currency": "CNY", "min_order_amount": 0},
}
DAY_MS = 86_400_000


async def open_envelope(api: Caller, **changes: Any) -> None:
    await api.open(**({"benefit": ENVELOPE, "max_coupons": 3, "budget": None} | changes))


async def raise_quota(api: Caller, user: str = "ann", **body: Any) -> Any:
    return await api.http.put(f"/v1/campaigns/spring/users/{user}/quota", json={"reason": "a referral"} | body)


async def deactivations(api: Caller, **body: Any) -> Any:
    return await api.http.post("/v1/campaigns/spring/deactivations", json={"reason": "leaked"} | body)


async def test_a_campaign_shows_the_benefit_that_it_was_given(api: Caller) -> None:
    await api.create(id="percent", code_prefix="PC", benefit=PERCENT)
    assert (await api.campaign("percent"))["benefit"] == PERCENT
    await api.create(id="envelope", code_prefix="RE", benefit=ENVELOPE, max_coupons=3, budget=None)
    shown = await api.campaign("envelope")
    assert (shown["benefit"], shown["budget"]) == (ENVELOPE, {"amount": 1000, "currency": "CNY"})


async def test_a_coupon_shows_what_its_holder_drew_and_never_the_pot(api: Caller) -> None:
    await open_envelope(api)
    drawn = []
    for user in ("ann", "bob", "eve"):
        issued, again = await api.issue(user), await api.issue(user)
        assert issued.json() == again.json() == await api.coupon(issued.json()["code"])
        benefit = issued.json()["benefit"]
        drawn.append(benefit.pop("amount"))
        assert benefit == {"kind": "red_envelope", "currency": "CNY", "min_order_amount": 0}
        listed = (await api.http.get(f"/v1/campaigns/spring/users/{user}/coupons")).json()["coupons"]
        assert listed == [again.json()]
    assert (sum(drawn), min(drawn) >= 5) == (1000, True)
    assert reason(await api.issue("zoe")) == "sold_out"
    redeemed = await api.redeem(await api.code("ann"))
    assert redeemed.json()["discount_amount"] == drawn[0]
    counters = (await api.campaign())["counters"]
    assert (counters["budget_remaining"], counters["liability"]) == (0, 1000 - drawn[0])


async def test_a_percentage_comes_off_the_order(api: Caller) -> None:
    await api.open(benefit=PERCENT)
    code = await api.code()
    refused = await api.redeem(code)
    assert refusal(refused) == (422, "order_amount_required")
    assert (await api.redeem(code, order_amount=999)).json()["discount_amount"] == 199
    assert (await api.coupon(code))["benefit"] == PERCENT
    assert (await api.campaign())["counters"]["liability"] == 0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"benefit": PERCENT | {"percent": 0}}, "benefit.percent"),
        ({"benefit": PERCENT | {"percent": 101}}, "benefit.percent"),
        ({"benefit": PERCENT | {"percent": 12.5}}, "benefit.percent"),
        ({"benefit": PERCENT | {"max_amount": None}}, "benefit.max_amount"),
        ({"benefit": PERCENT | {"amount": 1}}, "benefit.amount"),
        ({"benefit": ENVELOPE | {"pot": 14}, "max_coupons": 3, "budget": None}, "benefit"),
        ({"benefit": ENVELOPE | {"min_share": 0}}, "benefit.min_share"),
        ({"benefit": ENVELOPE | {"shares": 0}}, "benefit.shares"),
        ({"benefit": ENVELOPE | {"pot": 10**14 + 1}}, "benefit.pot"),
        ({"benefit": ENVELOPE, "budget": None}, "body"),
        ({"benefit": ENVELOPE, "max_coupons": 3}, "body"),
        ({"benefit": {"currency": "CNY"}}, "benefit.kind"),
        ({"benefit": []}, "benefit"),
        ({"max_coupons_per_day": 0}, "max_coupons_per_day"),
        ({"max_coupons_per_user_per_day": 1001}, "max_coupons_per_user_per_day"),
        ({"max_coupons_per_order": 101}, "max_coupons_per_order"),
        ({"max_redemptions_per_merchant": "3"}, "max_redemptions_per_merchant"),
        ({"max_quota_per_user": 1001}, "max_quota_per_user"),
        ({"max_quota_per_user": 20}, "max_quota_per_user"),
    ],
)
async def test_a_mistake_in_a_benefit_or_a_limit_is_named(
    api: Caller, room: Room, changes: dict[str, Any], field: str
) -> None:
    before = await contents(room)
    assert list(field_errors(await api.create(**changes))) == [field]
    assert await contents(room) == before


@pytest.mark.parametrize(
    ("changes", "wrong", "field"),
    [
        ({"benefit": ENVELOPE, "max_coupons": 3, "budget": None}, {"max_coupons": 4}, "body"),
        ({"benefit": ENVELOPE, "max_coupons": 3, "budget": None}, {"budget": None}, "body"),
        ({}, {"max_coupons_per_order": 1}, "max_coupons_per_order"),
        ({"max_coupons_per_order": 1}, {"max_coupons_per_order": None}, "max_coupons_per_order"),
        ({}, {"max_redemptions_per_merchant": 1}, "max_redemptions_per_merchant"),
        ({}, {"max_quota_per_user": 20}, "max_quota_per_user"),
        ({"max_quota_per_user": 25}, {"max_coupons_per_user": 26}, "max_quota_per_user"),
    ],
)
async def test_a_change_that_does_not_fit_changes_nothing(
    api: Caller, room: Room, changes: dict[str, Any], wrong: dict[str, Any], field: str
) -> None:
    await api.open(**changes)
    before = await contents(room)
    assert list(field_errors(await api.change(2, **wrong))) == [field]
    assert await contents(room) == before


async def test_limits_are_changed_at_once_and_shown(api: Caller) -> None:
    await api.open(max_redemptions_per_merchant=1)
    limits: dict[str, Any] = {"max_coupons_per_day": 2, "max_coupons_per_user_per_day": 1, "max_quota_per_user": 30}
    changed = (await api.change(2, **limits, max_redemptions_per_merchant=2)).json()
    assert {name: changed[name] for name in limits} == limits
    assert changed["max_redemptions_per_merchant"] == 2
    codes = [await api.code(user) for user in ("ann", "bob")]
    too_often = await api.issue("ann", "second")
    assert refusal(too_often) == (409, "per_user_daily_limit")
    gone = await api.issue("eve")
    assert refusal(gone) == (409, "daily_limit")
    till_midnight_s = int(gone.headers["retry-after"])
    assert 58_440 <= till_midnight_s <= 58_440 + 60
    for number, code in enumerate(codes):
        assert (await api.redeem(code, f"order-{number}")).status_code == 201
    changed = (await api.change(3, max_coupons_per_day=None, max_coupons_per_user_per_day=None)).json()
    assert (changed["max_coupons_per_day"], changed["max_redemptions_per_merchant"]) == (None, 2)
    assert refusal(await api.redeem(await api.code("eve"), "order-9")) == (409, "per_merchant_limit")


async def test_an_earned_quota_raises_the_users_cap(api: Caller) -> None:
    await api.open(max_coupons_per_user=1, max_quota_per_user=21)
    await api.issue("ann", "1")
    assert reason(await api.issue("ann", "2")) == "per_user_limit"
    raised = await raise_quota(api, max_coupons=2)
    assert raised.json() == {"campaign_id": "spring", "user_id": "ann", "max_coupons": 2}
    assert (await api.issue("ann", "2")).status_code == 201
    too_high = await raise_quota(api, max_coupons=22)
    assert (refusal(too_high), too_high.json()["max_quota"]) == ((409, "quota_too_high"), 21)


async def test_a_mistake_in_a_quota_or_a_deactivation_changes_nothing(api: Caller, room: Room) -> None:
    await api.open(max_quota_per_user=25)
    await api.code()
    before = await contents(room)
    for wrong in ({}, {"max_coupons": 0}, {"max_coupons": 1001}, {"max_coupons": "2"}, {"max_coupons": 2, "x": 1}):
        assert field_errors(await raise_quota(api, **wrong))
    assert field_errors(await raise_quota(api, max_coupons=2, reason=""))
    assert field_errors(await raise_quota(api, "a%20b", max_coupons=2))
    for codes in (None, [], "QWEN", [1], [""], ["x" * 200], ["x"] * 401):
        assert field_errors(await deactivations(api, codes=codes)), codes
    assert field_errors(await deactivations(api, codes=["x"], reason=None))
    assert field_errors(await api.http.post("/v1/campaigns/spring/users/ann/deactivate", json={}))
    for path in ("deactivations", "users/ann/deactivate"):
        body = {"codes": ["x"], "reason": "leaked"} if path == "deactivations" else {"reason": "leaked"}
        answer = await api.http.post(f"/v1/campaigns/autumn/{path}", json=body)
        assert refusal(answer) == (404, "not_found")
    nowhere = await api.http.put("/v1/campaigns/autumn/users/ann/quota", json={"max_coupons": 2, "reason": "x"})
    assert refusal(nowhere) == (404, "not_found")
    assert await contents(room) == before


async def test_a_list_of_codes_is_deactivated_and_each_is_answered(api: Caller) -> None:
    await api.open()
    codes = [await api.code(f"user-{number}") for number in range(3)]
    await api.redeem(codes[1])
    await api.redeem(codes[2], hold=True)
    await api.create(id="autumn", code_prefix="FALL")
    asked = [codes[0].lower(), codes[1], codes[2], f"{codes[0][:-1]}!", codes[0].replace("QWEN", "FALL"), codes[0]]
    answer = (await deactivations(api, codes=asked)).json()
    words = ["deactivated", "already_redeemed", "reserved_elsewhere", "not_found", "not_found", "deactivated"]
    coupons = [{"code": code, "outcome": word} for code, word in zip(asked, words, strict=True)]
    assert answer == {"campaign_id": "spring", "deactivated": 2, "coupons": coupons}
    assert refusal(await api.redeem(codes[0])) == (409, "deactivated")
    counters = (await api.campaign())["counters"]
    assert (counters["deactivated"], counters["budget_remaining"]) == (1, 10**9 - 5000)


async def test_as_many_codes_as_one_may_name_fit_into_a_body(api: Caller) -> None:
    await api.open(code_prefix="QWENQWEN")
    code = await api.code()
    answer = await deactivations(api, codes=[code] * 400)
    assert (answer.status_code, answer.json()["deactivated"]) == (200, 400)
    assert (await api.campaign())["counters"]["deactivated"] == 1


async def test_all_coupons_of_a_user_are_deactivated(api: Caller) -> None:
    await api.open()
    codes = [await api.code("ann", str(number)) for number in range(2)]
    other = await api.code("bob")
    answer = (await api.http.post("/v1/campaigns/spring/users/ann/deactivate", json={"reason": "stolen"})).json()
    assert answer["deactivated"] == 2
    assert [coupon["code"] for coupon in answer["coupons"]] == codes
    assert (await api.coupon(other))["status"] == "issued"
