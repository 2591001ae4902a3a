"""Campaigns are created, looked at, changed from the version one has seen, started, paused, resumed and stopped."""

from typing import Any

import pytest

from tests.api.caller import CAMPAIGN, Caller, contents, field_errors, reason, refusal
from tests.store.desk import LAUNCH, Room, at

pytestmark = pytest.mark.anyio

UNTOUCHED = {"issued": 0, "outstanding": 0, "reserved": 0, "redeemed": 0, "expired": 0, "deactivated": 0}
LIMITS = [
    *["max_quota_per_user", "max_coupons_per_day", "max_coupons_per_user_per_day"],
    *["max_coupons_per_order", "max_redemptions_per_merchant"],
]
WINDOW = {"starts_at": "2026-02-07T00:00:00.000+08:00", "ends_at": "2026-02-08T00:00:00.000+08:00"}


async def test_a_new_campaign_is_a_draft_that_says_where_it_is_and_which_version(api: Caller) -> None:
    created = await api.create()
    assert (created.status_code, created.headers["location"], created.headers["etag"]) == (
        201,
        "/v1/campaigns/spring",
        '"1"',
    )
    counters = UNTOUCHED | {"remaining": 10_000, "budget_remaining": 10**9, "liability": 0}
    given = CAMPAIGN | {
        "validity": CAMPAIGN["validity"] | {"starts_at": None, "wait": None, "duration": None, "stop_the_clock": False}
    }
    limits = dict.fromkeys(LIMITS)
    unset: dict[str, Any] = {"issue_window": None, "user_rate": None, "merchant_rate": None, "issue_coupling": None}
    unset |= {"messages": {}, "codes": "computed"} | limits
    assert created.json() == given | unset | {"status": "draft", "version": 1, "counters": counters}
    assert await api.campaign() == created.json()


async def test_all_that_was_said_about_a_campaign_is_shown(api: Caller) -> None:
    said: dict[str, Any] = {
        "validity": {"timezone": "Europe/Berlin", "wait": "P1D", "duration": "P7DT12H", "stop_the_clock": True},
        "issue_window": {"starts_at": "2026-02-07T00:00:00.000+01:00", "ends_at": "2026-02-08T00:00:00.250+01:00"},
        "issue_rate": {"per_second": 0.5, "burst": 3},
        "user_rate": {"per_second": 1.25, "burst": 1},
        "merchant_rate": {"per_second": 0.001, "burst": 2},
        "issue_coupling": {"redemptions_per_second": 12.5},
        "benefit": {"kind": "amount", "amount": 2500, "currency": "EUR", "min_order_amount": 10_000},
    }
    shown = (await api.create(**said, budget=None)).json()
    assert {name: shown[name] for name in said} == said | {
        "validity": said["validity"] | {"starts_at": None, "expires_at": None}
    }
    assert (shown["budget"], shown["counters"]["budget_remaining"]) == (None, None)


async def test_a_campaign_coupled_to_its_merchants_is_refused_by_their_bucket_until_it_is_not(api: Caller) -> None:
    second = {"timezone": "Asia/Shanghai", "duration": "PT10S"}
    await api.open(validity=second, issue_coupling={"redemptions_per_second": 0.2})
    code = await api.code("ann")
    assert (await api.issue("bob")).status_code == 201
    refused = await api.issue("eve")
    assert refusal(refused) == (429, "rate_limited")
    assert (refused.json()["bucket"], refused.headers["retry-after"]) == ("redemption", "5")
    assert refused.headers["ratelimit-policy"] == '"redemption";q=2;w=10'
    assert (await api.redeem(code)).status_code == 201
    assert (await api.issue("eve")).status_code == 201
    assert reason(await api.issue("kim")) == "rate_limited"
    changed = await api.change(issue_coupling=None)
    assert (changed.status_code, changed.json()["issue_coupling"]) == (200, None)
    assert (await api.issue("kim")).status_code == 201
    coupled = await api.change(3, issue_coupling={"redemptions_per_second": 0.001})
    assert coupled.json()["issue_coupling"] == {"redemptions_per_second": 0.001}
    assert reason(await api.issue("lee")) == "rate_limited"


async def test_without_a_code_prefix_the_id_lends_one(api: Caller) -> None:
    for campaign, prefix in (("spring-festival", "SPRINGFE"), ("a", "AX")):
        assert (await api.create(id=campaign, code_prefix=None)).json()["code_prefix"] == prefix


async def test_an_id_and_a_code_prefix_are_taken_once(api: Caller, room: Room) -> None:
    await api.create()
    before = await contents(room)
    assert refusal(await api.create(code_prefix="OTHER")) == (409, "campaign_exists")
    assert refusal(await api.create(id="summer")) == (409, "code_prefix_taken")
    assert await contents(room) == before


async def test_campaigns_are_listed_the_newest_first_with_their_counters(api: Caller, room: Room) -> None:
    assert (await api.http.get("/v1/campaigns")).json() == {"campaigns": []}
    await api.open()
    await api.issue()
    await room.clock.advance(1)
    await api.create(id="summer", code_prefix="SUN")
    listed = (await api.http.get("/v1/campaigns")).json()["campaigns"]
    assert [campaign["id"] for campaign in listed] == ["summer", "spring"]
    assert [campaign["counters"]["issued"] for campaign in listed] == [0, 1]
    assert listed[1] == await api.campaign()


async def test_a_campaign_that_is_over_before_it_begins_is_refused(api: Caller, room: Room) -> None:
    await room.clock.set(at("2026-02-23T23:59:59.999+08:00"))
    assert field_errors(await api.create()) == {"validity.expires_at": "is in the past"}
    later = {"timezone": "Asia/Shanghai", "expires_at": "2027-01-01T00:00:00+08:00"}
    assert field_errors(await api.create(validity=later, issue_window=WINDOW)) == {
        "issue_window.ends_at": "is in the past"
    }
    assert (await api.http.get("/v1/campaigns")).json() == {"campaigns": []}


async def test_all_that_is_asked_of_an_unknown_campaign_gets_one_answer(api: Caller) -> None:
    answers = [
        await api.http.get("/v1/campaigns/autumn"),
        await api.change(campaign="autumn", max_coupons=1),
        *[await api.tell(verb, "autumn") for verb in ("start", "pause", "resume", "stop")],
        await api.issue(campaign="autumn"),
        await api.http.get("/v1/campaigns/autumn/users/ann/coupons"),
        await api.extend(),
        await api.http.get("/v1/extensions/autumn.1"),
        await api.http.get("/v1/nowhere"),
    ]
    assert {refusal(answer) for answer in answers} == {(404, "not_found")}
    assert len({answer.content for answer in answers}) == 1


async def test_a_campaign_found_after_it_was_asked_for_in_vain_is_there_at_once(api: Caller) -> None:
    assert (await api.issue()).status_code == 404
    await api.open()
    assert (await api.issue()).status_code == 201


async def test_a_change_names_the_version_that_it_is_made_from(api: Caller, room: Room) -> None:
    await api.create()
    before = await contents(room)
    bare = await api.http.patch("/v1/campaigns/spring", json={"max_coupons": 5})
    assert refusal(bare) == (428, "if_match_required")
    for stale in ("2", '"0"', "x", "*"):
        answer = await api.change(stale, max_coupons=5)
        assert refusal(answer) == (412, "version_stale")
        assert answer.json()["version"] == 1
    assert await contents(room) == before
    for number, match in enumerate(("1", '"2"', 'W/"3"')):
        changed = await api.change(match, max_coupons=5 + number)
        assert (changed.status_code, changed.json()["version"], changed.headers["etag"]) == (
            200,
            number + 2,
            f'"{number + 2}"',
        )
        assert changed.json()["max_coupons"] == 5 + number


async def test_caps_rates_and_budget_go_up_and_down_and_hold_at_once(api: Caller) -> None:
    await api.open(max_coupons=1, budget={"amount": 2500, "currency": "CNY"})
    await api.issue()
    assert reason(await api.issue("bob")) == "sold_out"
    await api.change(2, max_coupons=4)
    assert reason(await api.issue("bob")) == "budget_exhausted"
    await api.change(3, budget={"amount": 5000, "currency": "CNY"})
    assert (await api.issue("bob")).status_code == 201
    changed = await api.change(4, budget=None, max_coupons_per_user=1, user_rate={"per_second": 1, "burst": 1})
    assert changed.json()["counters"]["budget_remaining"] is None
    assert reason(await api.issue("bob", "second")) == "per_user_limit"
    await api.change(5, max_coupons_per_user=3)
    assert (await api.issue("bob", "second")).status_code == 201
    assert reason(await api.issue("bob", "third")) == "rate_limited"
    await api.change(6, user_rate=None, max_coupons=3)
    assert reason(await api.issue("bob", "third")) == "sold_out"
    counters = (await api.campaign())["counters"]
    money = {"budget_remaining": None, "liability": 7500}
    assert counters == UNTOUCHED | {"issued": 3, "outstanding": 3, "remaining": 0} | money


async def test_a_change_that_raises_and_lowers_tells_the_version_that_the_next_is_made_from(api: Caller) -> None:
    await api.create()
    changed = await api.change(1, max_coupons=5, issue_rate={"per_second": 7, "burst": 7})
    told = changed.json()
    assert (changed.status_code, told["max_coupons"], told["issue_rate"]["burst"]) == (200, 5, 7)
    assert told == await api.campaign()
    assert (await api.change(changed.headers["etag"], max_coupons=6)).status_code == 200


async def test_no_cap_goes_below_what_was_given_out(api: Caller) -> None:
    await api.open()
    for user in ("ann", "bob"):
        await api.issue(user)
    too_few = await api.change(2, max_coupons=1)
    assert refusal(too_few) == (409, "max_coupons_below_issued")
    assert too_few.json()["issued"] == 2
    version = (await api.campaign())["version"]
    too_little = await api.change(version, budget={"amount": 4999, "currency": "CNY"})
    assert refusal(too_little) == (409, "budget_below_committed")
    assert too_little.json()["committed"] == 5000
    campaign = await api.campaign()
    assert (campaign["max_coupons"], campaign["budget"]["amount"]) == (10_000, 10**9)
    assert (await api.issue("eve")).status_code == 201


@pytest.mark.parametrize(
    ("story", "verb", "status"),
    [
        ([], "start", "running"),
        (["start"], "start", "running"),
        (["start"], "pause", "paused"),
        (["start", "pause"], "pause", "paused"),
        (["start", "pause"], "resume", "running"),
        (["start"], "resume", "running"),
        (["start"], "stop", "stopped"),
        (["start", "pause"], "stop", "stopped"),
        ([], "stop", "stopped"),
        (["stop"], "stop", "stopped"),
    ],
)
async def test_a_campaign_goes_through_its_life(api: Caller, story: list[str], verb: str, status: str) -> None:
    await api.create()
    for earlier in story:
        await api.tell(earlier)
    before = await api.campaign()
    told = await api.tell(verb)
    assert (told.status_code, told.json()["status"]) == (200, status)
    # What holds already is no change.
    assert told.json()["version"] == before["version"] + (before["status"] != status)
    assert told.headers["etag"] == f'"{told.json()["version"]}"'


@pytest.mark.parametrize(
    ("story", "verb", "status"),
    [
        ([], "pause", "draft"),
        ([], "resume", "draft"),
        (["start", "pause"], "start", "paused"),
        (["start", "stop"], "start", "stopped"),
        (["start", "stop"], "pause", "stopped"),
        (["start", "stop"], "resume", "stopped"),
    ],
)
async def test_what_the_life_of_a_campaign_forbids_is_refused(
    api: Caller, room: Room, story: list[str], verb: str, status: str
) -> None:
    await api.create()
    for earlier in story:
        await api.tell(earlier)
    before = await contents(room)
    refused = await api.tell(verb)
    assert refusal(refused) == (409, "illegal_transition")
    assert refused.json()["campaign_status"] == status
    assert await contents(room) == before


async def test_a_campaign_with_a_window_is_scheduled_runs_and_ends_by_the_clock(api: Caller, room: Room) -> None:
    await api.create(issue_window=WINDOW)
    assert (await api.tell("start")).json()["status"] == "scheduled"
    early = await api.issue()
    assert refusal(early) == (409, "campaign_not_running")
    seconds = (at(WINDOW["starts_at"]) - LAUNCH) // 1000
    assert (early.json()["campaign_status"], early.headers["retry-after"]) == ("scheduled", str(seconds))
    await room.clock.set(at(WINDOW["starts_at"]))
    assert (await api.campaign())["status"] == "running"
    assert (await api.issue()).status_code == 201
    await room.clock.set(at(WINDOW["ends_at"]))
    assert (await api.campaign())["status"] == "ended"
    late = await api.issue("bob")
    assert refusal(late) == (409, "campaign_not_running")
    assert (late.json()["campaign_status"], "retry-after" in late.headers) == ("ended", False)
