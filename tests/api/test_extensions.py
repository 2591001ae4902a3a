"""Extensions over HTTP: in force when they are answered, tried without effect, refused, and looked at."""

from hashlib import sha256

import pytest

from service.api.app import fastapi_lane
from service.api.door import Door, Doorkeeper
from service.api.parts import Parts
from service.store import previews
from service.store.jobs import PREVIEW_EXTENSION, WRITE_EXTENSION_THROUGH, WRITE_UNDO_THROUGH
from tests.api.caller import Caller, contents, field_errors, refusal, settings
from tests.store.desk import EXPIRY, TURNABLE_CLOCK, Room, at

pytestmark = pytest.mark.anyio

LATER = "2026-02-28T23:59:59.999+08:00"
STILL_LATER = "2026-03-01T23:59:59.999+08:00"


async def test_an_extension_holds_when_it_is_answered_and_its_work_is_enqueued(api: Caller, parts: Parts) -> None:
    await api.open()
    code = await api.code()
    extended = await api.extend(LATER)
    assert extended.status_code == 202
    assert extended.json() == {
        "id": "spring.1",
        "campaign_id": "spring",
        "expires_at": LATER,
        "status": "pending",
        "total": 1,
        "done": 0,
        "changed": 0,
        "reason": "the holidays",
        "added_ms": None,
        "scope": None,
        "include_expired": False,
        "revived": 0,
        "refused": 0,
        "actor": "local",
        "made_at": "2026-02-06T07:46:00.000+08:00",
        "undo_until": "2026-02-07T07:46:00.000+08:00",
        "undo": None,
        "liability": None,
        "budget_needed": None,
    }
    assert (await api.coupon(code))["expires_at"] == LATER
    assert (await api.issue("bob")).json()["expires_at"] == LATER
    assert (await api.http.get("/v1/extensions/spring.1")).json() == extended.json()
    jobs = [(job.func_name, job.args) for job in parts.jobs.rq.get_jobs()]
    assert jobs == [(WRITE_EXTENSION_THROUGH, ["spring", 1])]


async def test_an_extended_coupon_is_redeemed_after_its_first_expiry(api: Caller, room: Room) -> None:
    await api.open()
    code = await api.code()
    await api.extend(LATER)
    await room.clock.set(EXPIRY)
    assert (await api.redeem(code)).status_code == 201


async def test_the_progress_of_the_work_is_told(api: Caller, room: Room) -> None:
    await api.open()
    for number in range(3):
        await api.code(f"user-{number}")
    await api.extend(LATER)
    campaign = await room.catalogue.load("spring")
    assert campaign is not None
    await room.extensions.write_through(campaign, 0, 1)
    progress = (await api.http.get("/v1/extensions/spring.1")).json()
    assert (progress["status"], progress["total"], progress["done"], progress["changed"]) == ("completed", 3, 3, 3)


async def test_a_trial_counts_what_would_change_and_changes_nothing(api: Caller, room: Room) -> None:
    await api.open()
    codes = [await api.code(f"user-{number}") for number in range(4)]
    await api.redeem(codes[0])
    await api.deactivate(codes[1])
    before = await contents(room)
    trial = await api.extend(LATER, dry_run=True)
    assert (trial.status_code, trial.json()["id"], trial.json()["expires_at"]) == (202, "spring.preview", LATER)
    assert (trial.json()["total"], trial.json()["changed"]) == (4, 2)
    assert await contents(room) == before
    assert refusal(await api.http.get("/v1/extensions/spring.preview")) == (404, "not_found")
    earlier = await api.extend("2026-02-20T00:00:00+08:00", dry_run=True)
    assert (earlier.json()["total"], earlier.json()["changed"]) == (4, 0)


async def test_an_extension_never_shortens_and_twice_is_once(api: Caller) -> None:
    await api.open()
    code = await api.code()
    for until, holds in ((STILL_LATER, STILL_LATER), (LATER, STILL_LATER), (STILL_LATER, STILL_LATER)):
        assert (await api.extend(until)).status_code == 202
        assert (await api.coupon(code))["expires_at"] == holds


@pytest.mark.parametrize(
    ("until", "message"),
    [
        ("2026-02-06T07:46:00+08:00", "is in the past"),
        ("1970-01-01T00:00:00Z", "is in the past"),
        ("0001-01-01T00:00:00+23:59", "must be between the years 1970 and 9998"),
        ("9999-12-31T23:59:59-23:59", "must be between the years 1970 and 9998"),
        ("2026-02-28", "must be RFC 3339 text with an offset, such as 2026-02-28T23:59:59+08:00"),
    ],
)
async def test_an_extension_into_the_past_or_beyond_time_is_refused(
    api: Caller, room: Room, until: str, message: str
) -> None:
    await api.open()
    before = await contents(room)
    for trial in (False, True):
        assert field_errors(await api.extend(until, dry_run=trial)) == {"expires_at": message}
    assert await contents(room) == before


async def test_coupons_can_be_made_valid_to_the_end_of_time(api: Caller) -> None:
    await api.open()
    code = await api.code()
    assert (await api.extend("9998-12-31T23:59:59.999Z")).status_code == 202
    assert (await api.coupon(code))["expires_at"] == "9999-01-01T07:59:59.999+08:00"


async def test_a_campaign_is_extended_64_times_at_most(api: Caller, room: Room) -> None:
    await api.open()
    for _ in range(64):
        assert (await api.extend()).status_code == 202
    before = await contents(room)
    assert refusal(await api.extend()) == (409, "too_many_extensions")
    assert await contents(room) == before
    assert (await api.http.get("/v1/extensions/spring.64")).json()["id"] == "spring.64"


@pytest.mark.parametrize(
    "name",
    [
        "spring.2",
        "spring.0",
        "spring.01",
        "spring.-1",
        "spring.1.1",
        "spring.",
        "spring",
        "x.1",
        f"spring.{'9' * 5_000}",
    ],
)
async def test_an_extension_that_was_never_made_is_not_found(api: Caller, name: str) -> None:
    await api.open()
    await api.extend()
    assert refusal(await api.http.get(f"/v1/extensions/{name}")) == (404, "not_found")


@pytest.mark.parametrize(
    ("scope", "field", "message"),
    [
        ({}, "scope", "say whom it concerns, or leave scope out for every coupon"),
        ({"user_ids": None}, "scope", "say whom it concerns, or leave scope out for every coupon"),
        ({"user_ids": []}, "scope.user_ids", "List should have at least 1 item after validation, not 0"),
        (
            {"issued_from": "2026-02-07T00:00:00Z", "issued_to": "2026-02-07T00:00:00Z"},
            "scope",
            "issued_to must be later than issued_from",
        ),
        ({"everybody": True}, "scope.everybody", "unknown field"),
        (
            {"user_ids": [f"user-{number}" for number in range(201)]},
            "scope.user_ids",
            "List should have at most 200 items after validation, not 201",
        ),
    ],
)
async def test_a_scope_that_says_nothing_or_too_much_is_refused(
    api: Caller, room: Room, scope: dict[str, object], field: str, message: str
) -> None:
    await api.open()
    before = await contents(room)
    assert field_errors(await api.extend(LATER, scope=scope)) == {field: message}
    assert await contents(room) == before


async def test_a_scoped_extension_holds_for_those_it_names_once_it_is_worked_off(api: Caller, room: Room) -> None:
    await api.open()
    mine, theirs = await api.code("ann"), await api.code("bob")
    scope = {"user_ids": ["ann"], "issued_from": "2026-02-06T00:00:00.000+08:00"}
    extended = await api.extend(LATER, scope=scope)
    assert extended.status_code == 202
    unset = {"issued_to": None, "expiring_before": None, "merchant_id": None}
    assert extended.json()["scope"] == scope | unset
    campaign = await room.catalogue.load("spring")
    assert campaign is not None
    await room.extensions.write_through(campaign, 0, 1)
    assert [(await api.coupon(code))["expires_at"] == LATER for code in (mine, theirs)] == [True, False]
    assert (await api.issue("eve")).json()["expires_at"] != LATER
    assert (await api.http.get("/v1/extensions/spring.1")).json()["changed"] == 1


async def test_an_undone_extension_holds_no_longer_save_for_what_was_used_meanwhile(
    api: Caller, parts: Parts, room: Room
) -> None:
    await api.open()
    used, unused = await api.code("ann"), await api.code("bob")
    await api.extend(LATER)
    await room.clock.advance(1)
    held = (await api.redeem(used, hold=True)).json()["id"]
    await room.clock.advance(1)
    undone = await api.undo("spring.1")
    assert (undone.status_code, undone.json()["status"]) == (202, "undoing")
    assert undone.json()["undo"] == {
        "undone_at": "2026-02-06T07:46:00.002+08:00",
        "reason": "the wrong year",
        "actor": "local",
        "total": 2,
        "done": 0,
        "shortened": 0,
    }
    assert undone.json()["undo_until"] is None
    await api.settle("release", held)
    assert [(await api.coupon(code))["expires_at"] == LATER for code in (used, unused)] == [True, False]
    assert (await api.issue("eve")).json()["expires_at"] != LATER
    jobs = [(job.func_name, job.args) for job in parts.jobs.rq.get_jobs()]
    assert jobs == [(WRITE_EXTENSION_THROUGH, ["spring", 1]), (WRITE_UNDO_THROUGH, ["spring", 1])]
    before = await contents(room)
    assert (await api.undo("spring.1")).json() == undone.json()
    assert await contents(room) == before


async def test_an_extension_is_undone_within_its_window_only(api: Caller, room: Room) -> None:
    await api.open()
    await api.extend(LATER)
    await room.clock.advance(86_400_001)
    before = await contents(room)
    assert refusal(await api.undo("spring.1")) == (409, "undo_window_over")
    for name in ("spring.2", "autumn.1", "spring.preview-1", "spring"):
        assert refusal(await api.undo(name)) == (404, "not_found")
    assert field_errors(await api.undo("spring.1", reason="")) == {"reason": "String should have at least 1 character"}
    assert await contents(room) == before


async def test_a_dry_run_tells_the_liability_and_what_the_budget_must_cover_again(api: Caller, room: Room) -> None:
    await api.open()
    codes = [await api.code(f"user-{number}") for number in range(4)]
    await api.redeem(codes[0])
    await room.clock.set(EXPIRY)
    campaign = await room.catalogue.load("spring")
    assert campaign is not None
    await room.extensions.expire(campaign, 0)
    for include_expired, count in ((False, 0), (True, 3)):
        trial = (await api.extend(LATER, dry_run=True, include_expired=include_expired)).json()
        assert (trial["status"], trial["total"], trial["done"]) == ("completed", 4, 4)
        assert (trial["changed"], trial["revived"]) == (count, count)
        for money in ("liability", "budget_needed"):
            assert trial[money] == {"amount": count * 2500, "currency": "CNY"}


async def test_a_dry_run_over_many_coupons_is_a_job_with_progress(
    api: Caller, parts: Parts, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previews, "COUNTED_AT_ONCE", 2)
    monkeypatch.setattr(previews, "COUPONS_PER_CALL", 128)
    await api.open()
    for number in range(3):
        await api.code(f"user-{number}")
    superseded = (await api.extend(LATER, dry_run=True)).json()["id"]
    trial = await api.extend(LATER, dry_run=True)
    assert (trial.json()["id"], trial.json()["status"]) == ("spring.preview-2", "pending")
    jobs = [(job.func_name, job.args) for job in parts.jobs.rq.get_jobs()]
    assert jobs == [(PREVIEW_EXTENSION, ["spring", 1]), (PREVIEW_EXTENSION, ["spring", 2])]
    campaign = await room.catalogue.load("spring")
    assert campaign is not None
    assert not await parts.extensions.previews.count(campaign, 1)
    assert not await parts.extensions.previews.count(campaign, 2)
    made = (await api.http.get("/v1/extensions/spring.preview-2")).json()
    assert (made["status"], made["total"], made["done"], made["changed"]) == ("completed", 3, 3, 3)
    assert made["liability"] == {"amount": 7500, "currency": "CNY"}
    assert refusal(await api.http.get(f"/v1/extensions/{superseded}")) == (404, "not_found")


async def test_the_record_names_the_key_that_extended_but_not_the_key(room: Room, store_url: str) -> None:
    named = Parts(settings(store_url, api_keys="a-long-key-of-ada"), TURNABLE_CLOCK)
    app = Door(fastapi_lane(named), Doorkeeper(["a-long-key-of-ada"]))
    async with named.running(), Caller(app, authorization="Bearer a-long-key-of-ada") as ada:
        await ada.open()
        actor = (await ada.extend(LATER)).json()["actor"]
        assert (await ada.undo("spring.1")).json()["undo"]["actor"] == actor
    assert actor == f"key-{sha256(b'a-long-key-of-ada').hexdigest()[:12]}"
    assert [(event.type, event.data) for event in await room.events()] == [
        ("campaign.extended", {"extension": 1, "until_ms": at(LATER), "reason": "the holidays", "actor": actor}),
        ("campaign.extension_undone", {"extension": 1, "reason": "the wrong year", "actor": actor}),
    ]
