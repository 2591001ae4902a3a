"""Hours, dates and waves over HTTP: what was said is shown, a mistake is named, a closed door says when it opens."""

from datetime import date, timedelta
from typing import Any, Final

import pytest

from service.domain.opening import MAX_DATES, MAX_HOURS
from service.domain.validity import MAX_WAVES
from service.store import keys
from tests.api.caller import CAMPAIGN, Caller, contents, field_errors, refusal
from tests.store.desk import Room, at

pytestmark = pytest.mark.anyio

WEEKEND: Final[dict[str, Any]] = {"days": ["sat", "sun"], "from": "10:00", "to": "24:00"}
NIGHT: Final[dict[str, Any]] = {"days": ["fri"], "from": "20:00", "to": "02:00"}
FIXED: Final[dict[str, Any]] = {
    "timezone": "Asia/Shanghai",
    "starts_at": "2026-02-06T00:00:00.000+08:00",
    "expires_at": "2026-02-23T23:59:59.999+08:00",
    "hours": [WEEKEND, NIGHT],
    "excluded_dates": ["2026-02-08"],
    "extra_dates": ["2026-02-16", "2026-02-17"],
    "waves": {"count": 2, "every": "P1D"},
    "stop_the_clock": True,
}
RELATIVE: Final[dict[str, Any]] = {
    "timezone": "Europe/Berlin",
    "wait": "P1D",
    "duration": "P7D",
    "excluded_dates": ["2026-12-24"],
    "waves": {"count": MAX_WAVES, "every": "PT30M"},
    "stop_the_clock": False,
}
MANY_DATES: Final = [(date(2026, 2, 7) + timedelta(days=day)).isoformat() for day in range(MAX_DATES + 1)]

MISTAKES: Final[dict[str, list[Any]]] = {
    "hours": [
        [],
        [NIGHT | {"from": f"{minute // 60:02}:{minute % 60:02}"} for minute in range(MAX_HOURS + 1)],
        [NIGHT, NIGHT],
        [NIGHT, WEEKEND | {"from": "01:59"}],
        "10:00-22:00",
    ],
    "hours.0": ["mon 10:00-22:00", 7],
    "hours.0.days": [[], ["fri", "fri"], "fri", None],
    "hours.0.days.0": [["friday"], ["Fri"], [5], [None]],
    "hours.0.from": ["24:00", "9:00", "10", "10:60", "25:00", "10:00:00", "10:00\n", "", 10, None],
    "hours.0.to": ["20:00", "24:01", "22", 22, None],
    "hours.0.until": ["22:00"],
    "excluded_dates": [["2026-02-17", "2026-02-17"], MANY_DATES, "2026-02-17", None],
    "excluded_dates.0": [["2026-02-30"], ["17.02.2026"], ["2026-2-7"], ["2026-02-17T00:00:00Z"], [1], ["9999-12-31"]],
    "extra_dates": [["2026-02-08"], MANY_DATES, None],
    "extra_dates.0": [["tomorrow"], [None]],
    "waves": [
        4,
        {"count": 18, "every": "P1D"},
        {"count": 2, "every": "P1840D"},
    ],
    "waves.count": [0, 1, -1, MAX_WAVES + 1, "4", 2.5, None],
    "waves.every": ["P0D", "PT0S", "1 day", "P1M", 86_400, None],
    "waves.each": [1],
}


def mistaken(path: str, wrong: Any) -> dict[str, Any]:
    """A validity with that one mistake."""
    name, *inner = path.split(".")
    match inner:
        case []:
            value = wrong
        case [str(index)] if index.isdigit():
            value = wrong if name.endswith("dates") else [wrong]
        case ["0", key, *_]:
            value = [NIGHT | {key: wrong}]
        case [key]:
            value = FIXED[name] | {key: wrong}
        case _:
            raise AssertionError(path)
    return FIXED | {name: value}


@pytest.mark.parametrize("path", MISTAKES)
async def test_a_mistake_is_refused_by_its_fields_name_and_changes_nothing(api: Caller, room: Room, path: str) -> None:
    before = await contents(room)
    for wrong in MISTAKES[path]:
        errors = field_errors(await api.create(validity=mistaken(path, wrong)))
        assert list(errors) == [f"validity.{path}"], wrong
    assert await contents(room) == before


@pytest.mark.parametrize(
    ("validity", "field", "message"),
    [
        (FIXED | {"hours": [NIGHT, WEEKEND | {"from": "01:00"}]}, "hours", "overlap on sat at 01:00"),
        (
            FIXED | {"hours": [NIGHT | {"to": "20:00"}]},
            "hours.0.to",
            "must differ from `from`; a whole day is 00:00 to 24:00",
        ),
        (FIXED | {"extra_dates": ["2026-02-08"]}, "extra_dates", "names 2026-02-08, which is in excluded_dates too"),
        (FIXED | {"hours": None}, "extra_dates", "goes with hours; without them every date is open"),
        (FIXED | {"starts_at": None}, "waves", "with expires_at needs starts_at, when the first one begins"),
        (
            FIXED | {"waves": {"count": 18, "every": "P1D"}},
            "waves",
            "must leave the last one as long as `every` before expires_at",
        ),
        (FIXED | {"timezone": "Asia/Peking"}, "timezone", "not an IANA time zone, such as Asia/Shanghai"),
    ],
)
async def test_a_mistake_is_explained(api: Caller, validity: dict[str, Any], field: str, message: str) -> None:
    assert field_errors(await api.create(validity=validity)) == {f"validity.{field}": message}


async def test_a_campaign_that_would_always_be_closed_is_refused(api: Caller) -> None:
    week = FIXED | {"expires_at": "2026-02-13T19:59:59.999+08:00", "extra_dates": []}
    assert (await api.create(validity=week)).status_code == 201
    never = week | {"excluded_dates": ["2026-02-06", "2026-02-07", "2026-02-08"]}
    refused = await api.create(validity=never, id="summer", code_prefix="SUN")
    assert field_errors(refused) == {"validity": "leaves no time in which a coupon can be redeemed"}


@pytest.mark.parametrize("validity", [FIXED, RELATIVE])
async def test_what_was_said_is_shown_and_can_be_said_again(api: Caller, validity: dict[str, Any]) -> None:
    created = (await api.create(validity=validity)).json()
    shown = {name: value for name, value in created["validity"].items() if value is not None}
    assert shown == validity
    assert await api.campaign() == created
    again = await api.create(validity=created["validity"], id="summer", code_prefix="SUN")
    assert again.json()["validity"] == created["validity"]


async def test_the_example_in_the_documents_is_a_good_one(api: Caller) -> None:
    schema = (await api.http.get("/openapi.json")).json()["components"]["schemas"]["Validity"]
    (example,) = schema["examples"]
    assert set(example["hours"][0]) == {"days", "from", "to"}
    assert (await api.create(validity=example)).status_code == 201


async def test_a_campaign_that_was_stored_before_there_were_hours_and_waves_keeps_working(
    api: Caller, room: Room
) -> None:
    await api.open()
    stored: Any = await room.client.hget(keys.CAMPAIGNS, "spring")
    old = stored.replace(b',"offsets":[],"opening":null,"waves":null', b"")
    assert old != stored
    await room.client.hset(keys.CAMPAIGNS, "spring", old)
    assert (await api.campaign())["validity"]["expires_at"] == CAMPAIGN["validity"]["expires_at"]
    assert (await api.redeem(await api.code())).status_code == 201
    assert (await api.tell("pause")).status_code == 200


async def test_a_closed_door_says_when_it_opens_and_a_near_one_how_long_to_wait(api: Caller, room: Room) -> None:
    await api.open(validity=FIXED | {"waves": None})
    code = await api.code()
    early = await api.redeem(code)
    assert refusal(early) == (409, "not_yet_valid")
    assert early.json()["usable_at"] == "2026-02-06T12:00:00.000+00:00"
    assert early.json()["detail"] == "The coupon can be used from 2026-02-06T12:00:00.000+00:00 on."
    assert "retry-after" not in early.headers
    await room.clock.set(at("2026-02-06T19:30:00.500+08:00"))
    assert (await api.redeem(code)).headers["retry-after"] == "1800"
    await room.clock.set(at("2026-02-06T20:00+08:00"))
    assert (await api.redeem(code)).status_code == 201


async def test_a_door_that_stays_closed_says_that_too(api: Caller, room: Room) -> None:
    await api.open(validity=FIXED | {"waves": None})
    code = await api.code()
    await room.clock.set(at("2026-02-23T10:00+08:00"))
    late = await api.redeem(code)
    assert refusal(late) == (409, "not_yet_valid")
    assert (late.json()["usable_at"], "retry-after" in late.headers) == (None, False)
    assert "until it expires at 2026-02-23T15:59:59.999+00:00" in late.json()["detail"]


async def test_each_coupon_shows_the_start_of_its_wave(api: Caller) -> None:
    await api.open(validity=FIXED)
    starts = [(await api.issue(user)).json()["starts_at"] for user in ("ann", "bob", "cid")]
    assert starts == [
        "2026-02-06T07:46:00.000+08:00",
        "2026-02-07T00:00:00.000+08:00",
        "2026-02-06T07:46:00.000+08:00",
    ]
    code = (await api.issue("bob")).json()["code"]
    assert (await api.coupon(code))["starts_at"] == starts[1]
