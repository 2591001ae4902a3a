"""Extensions over HTTP: in force when they are answered, tried without effect, refused, and looked at."""

import pytest

from service.api.parts import Parts
from service.store.jobs import WRITE_EXTENSION_THROUGH
from tests.api.caller import Caller, contents, field_errors, refusal
from tests.store.desk import EXPIRY, Room

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
