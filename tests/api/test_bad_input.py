"""Whatever is wrong with a request, the answer names the field and the reason, tells no secret, and nothing changes."""

import json
from typing import Any, Final

import pytest

from tests.api.caller import CAMPAIGN, Caller, contents, field_errors, refusal
from tests.store.desk import Room

pytestmark = pytest.mark.anyio

SECRET: Final = "hunter2-hunter2"
HUGE: Final = 10**30
MONEY: Final = {"amount": 2500, "currency": "CNY"}
FIXED: Final[dict[str, Any]] = {"timezone": "UTC", "expires_at": "2026-03-01T00:00:00Z"}
WEEK: Final[dict[str, Any]] = {"timezone": "UTC", "duration": "P7D"}
WINDOW: Final = {"starts_at": "2026-02-07T00:00:00Z", "ends_at": "2026-02-08T00:00:00Z"}

MISTAKES: Final[dict[str, list[Any]]] = {
    "colour": [SECRET, None],
    "status": ["running"],
    "id": ["", "Spring", "a/b", "a\n", "a\nb", "a\x00b", "-a", "a-", "a" * 41, 1, ["a"]],
    "name": ["", "a\nb", "a\x7f", "a" * 201, 1, {"secret": SECRET}],
    "max_coupons": [0, -1, 2**34, HUGE, 1.5, "1", True, [SECRET], {}],
    "max_coupons_per_user": [0, -1, 1_001, HUGE, "3", 1.0],
    "benefit.kind": ["voucher", SECRET, 1, None, ["amount"]],
    "benefit.amount": [0, -1, HUGE, "1", 2.5],
    "benefit.currency": ["cny", "CN", "CNYY", "C N", 156],
    "benefit.min_order_amount": [-1, HUGE, "0"],
    "budget": [2500, "2500 CNY", [2500, "CNY"]],
    "budget.amount": [-1, 0, HUGE],
    "budget.currency": ["", "YUAN", None],
    "budget.cents": [1],
    "issue_window": [[], WINDOW | {"ends_at": WINDOW["starts_at"]}, WINDOW | {"ends_at": "2026-01-01T00:00:00Z"}],
    "issue_window.ends_at": ["tomorrow", "2026-02-08T00:00:00", None],
    "validity": [
        {"timezone": "UTC"},
        FIXED | WEEK,
        FIXED | {"wait": "P1D"},
        FIXED | {"starts_at": FIXED["expires_at"]},
        WEEK | {"starts_at": "2026-02-07T00:00:00Z"},
        WEEK | {"duration": "P0D"},
    ],
    "validity.expires_at": [
        *["2026-03-01T00:00:00", "2026-03-01", "2026-02-30T00:00:00Z", "2026-03-01T25:00:00Z", "soon", 1772323200],
        *["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"],
    ],
    "validity.timezone": ["Asia/Peking", "", "+08:00", "../etc/passwd", 8, None],
    "validity.duration": ["7 days", "P1M", "P1Y", "-P7D", "P", "P3661D", "P99999D", "PT99999999999S", "P" * 50, 7],
    "validity.wait": ["1 day", "P1M", -1],
    "issue_rate": [1000, "1000/s", []],
    "issue_rate.per_second": [0, -1, 10**7, HUGE, 0.0001, "1"],
    "issue_rate.burst": [0, -1, 10**9, 1.5],
    "issue_coupling": [1, [], "all"],
    "issue_coupling.redemptions_per_second": [0, -1, 10**7, HUGE, 0.0001, "1", None],
    "user_rate.burst": [0, None],
    "code_prefix": ["Q", "qwen", "QWENQWENQ", "QW-N", "QWEN\n", 1],
}
AROUND: Final[dict[str, dict[str, Any]]] = {
    "validity.duration": {"validity": WEEK},
    "validity.wait": {"validity": WEEK},
    "issue_window.ends_at": {"issue_window": WINDOW},
    "user_rate.burst": {"user_rate": {"per_second": 1}},
    "issue_coupling.redemptions_per_second": {"issue_coupling": {}},
}
"""What a campaign needs for a mistake to be the only one."""


def mistaken(field: str, wrong: Any) -> dict[str, Any]:
    """A campaign with that one mistake."""
    campaign = CAMPAIGN | AROUND.get(field, {})
    name, _, inner = field.partition(".")
    return campaign | {name: campaign[name] | {inner: wrong} if inner else wrong}


@pytest.mark.parametrize("field", MISTAKES)
async def test_a_campaign_with_a_mistake_is_refused_by_the_fields_name(api: Caller, room: Room, field: str) -> None:
    before = await contents(room)
    for wrong in MISTAKES[field]:
        refused = await api.http.post("/v1/campaigns", json=mistaken(field, wrong))
        errors = field_errors(refused)
        assert list(errors) == [field], wrong
        assert refused.json()["detail"] == f"{field}: {errors[field]}"
        assert SECRET not in refused.text
    assert await contents(room) == before


@pytest.mark.parametrize("field", ["id", "name", "benefit", "max_coupons", "validity", "issue_rate"])
async def test_a_campaign_that_lacks_what_it_needs_is_told_what(api: Caller, field: str) -> None:
    assert field_errors(await api.create(**{field: None})) == {field: "Field required"}


async def test_money_is_in_one_currency_and_coupons_outlive_their_issue(api: Caller, room: Room) -> None:
    before = await contents(room)
    euros = await api.create(budget=MONEY | {"currency": "EUR"})
    assert field_errors(euros) == {"body": "budget.currency is EUR, but the benefit is in CNY"}
    late = await api.create(issue_window={"starts_at": "2026-03-01T00:00:00Z", "ends_at": "2026-03-02T00:00:00Z"})
    assert field_errors(late) == {"body": "validity.expires_at must be later than issue_window.starts_at"}
    assert await contents(room) == before


async def test_a_campaign_without_a_budget_promises_no_more_than_can_be_counted_exactly(api: Caller) -> None:
    vast = {"kind": "amount", "amount": 10**14, "currency": "CNY"}
    assert set(field_errors(await api.create(max_coupons=100, benefit=vast, budget=None))) == {"max_coupons"}
    assert (await api.create(max_coupons=90, benefit=vast, budget=None)).status_code == 201


async def test_every_mistake_of_a_request_is_named_but_only_so_many(api: Caller) -> None:
    errors = field_errors(await api.create(id="A/B", max_coupons=-1, surprise=1, budget=MONEY | {"amount": 0}))
    assert set(errors) == {"id", "max_coupons", "surprise", "budget.amount"}
    assert len(field_errors(await api.create(**{f"field-{number}": 1 for number in range(500)}))) == 20
    (field,) = field_errors(await api.create(**{"x" * 9_000: 1}))
    assert field == "x" * 100


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({}, "body"),
        ({"max_coupons": None}, "body"),
        ({"max_coupons": 0}, "max_coupons"),
        ({"max_coupons": HUGE}, "max_coupons"),
        ({"issue_rate": None}, "body"),
        ({"issue_rate": {"per_second": 1}}, "issue_rate.burst"),
        ({"user_rate": {"per_second": "1", "burst": 1}}, "user_rate.per_second"),
        ({"budget": MONEY | {"currency": "EUR"}}, "budget.currency"),
        ({"budget": MONEY | {"amount": HUGE}}, "budget.amount"),
        ({"id": "summer"}, "id"),
        ({"validity": FIXED}, "validity"),
        ({"status": "running"}, "status"),
    ],
)
async def test_a_change_with_a_mistake_changes_nothing(
    api: Caller, room: Room, wrong: dict[str, Any], field: str
) -> None:
    await api.open()
    before = await contents(room)
    assert list(field_errors(await api.change(2, **wrong))) == [field]
    assert await contents(room) == before


NO_JSON: Final = [
    *[b"", b" ", b"{", b'{"a":1,}', b"\xff\xfe", b"\xef\xbb\xbf[", b"[" * 9_000, b"NaN", b"null", b"[]", b"1", b'"x"'],
    *[b'{"reason":NaN}', b'{"reason":%s}' % (b"9" * 5_000), b'{"reason":"\\ud800"}', b'{"\\ud800":1}', b"reason=x"],
]
CALLS_WITH_A_BODY: Final = [
    *[("POST", path) for path in ("/v1/campaigns", "/v1/campaigns/spring/start", "/v1/campaigns/spring/extensions")],
    ("PATCH", "/v1/campaigns/spring"),
    # As the one path whose body may be long ends, but here it is a campaign's id.
    ("PATCH", "/v1/campaigns/imports"),
    *[("POST", f"/v1/coupons/QWEN-0000-0000-0000-0000/{verb}") for verb in ("redemptions", "deactivate")],
    ("POST", "/v1/redemptions/rd-QWEN-0/commit"),
    ("POST", "/v1/campaigns/spring/coupons"),
    ("PUT", "/v1/breaker"),
    ("PUT", "/v1/campaigns/spring/users/ann/quota"),
    *[("POST", f"/v1/campaigns/spring/{target}") for target in ("deactivations", "users/ann/deactivate")],
]


@pytest.mark.parametrize(("method", "path"), CALLS_WITH_A_BODY)
async def test_every_call_names_a_field_that_nobody_reads(api: Caller, method: str, path: str) -> None:
    await api.create()
    headers = {"If-Match": "1", "Idempotency-Key": "first"}
    refused = await api.http.request(method, path, json={"surprise": 1}, headers=headers)
    assert field_errors(refused)["surprise"] == "unknown field"


@pytest.mark.parametrize(("method", "path"), CALLS_WITH_A_BODY)
async def test_what_is_no_json_or_too_long_is_refused_by_every_call(
    api: Caller, room: Room, method: str, path: str
) -> None:
    await api.create()
    before = await contents(room)
    headers = {"If-Match": "1", "Idempotency-Key": "first"}
    for body in NO_JSON:
        refused = await api.http.request(method, path, content=body, headers=headers)
        if path.endswith("commit") and body in (b"", b"null"):
            assert refusal(refused) == (404, "not_found")
            continue
        assert field_errors(refused), body
    for body in (b" " * 17_000, b'{"reason":"%s"}' % (b"x" * 17_000)):
        refused = await api.http.request(method, path, content=body, headers=headers)
        assert refusal(refused) == (413, "body_too_large")
    assert await contents(room) == before


async def test_what_was_sent_is_not_repeated(api: Caller, room: Room) -> None:
    await api.open()
    before = await contents(room)
    for body in (
        {"user_id": SECRET + "/"},
        {"user_id": "ann", "token": SECRET},
        {"user_id": [SECRET]},
        [SECRET],
        SECRET,
    ):
        refused = await api.http.post(
            "/v1/campaigns/spring/coupons", content=json.dumps(body), headers={"Idempotency-Key": SECRET}
        )
        assert refused.status_code == 422
        assert SECRET not in refused.text
    assert await contents(room) == before


@pytest.mark.parametrize("user", ["a%2Fb", "a%0Ab", "%00", "a%20b", "%F0%9F%A7%A7", "a" * 65])
async def test_a_user_whose_name_cannot_be_is_refused(api: Caller, user: str) -> None:
    await api.open()
    answer = await api.http.get(f"/v1/campaigns/spring/users/{user}/coupons")
    if user == "a%2Fb":
        assert refusal(answer) == (404, "not_found")
    else:
        assert list(field_errors(answer)) == ["path.user_id"]


async def test_an_unsafe_request_id_is_replaced_and_a_safe_one_kept(api: Caller) -> None:
    for sent, kept in (("caller-1.A_b", True), ("a b", False), ("a\tb", False), ("a" * 65, False), ("", False)):
        answer = await api.http.get("/livez", headers={"X-Request-Id": sent})
        assert (answer.headers["x-request-id"] == sent) is kept
        assert answer.headers["x-request-id"]
