"""Whatever an operator changes stands in the log with the key that he showed, or local where none is asked for."""

from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from typing import Any

import pytest
from structlog.typing import EventDict

from service.api.app import fastapi_lane
from service.api.door import Door, Doorkeeper
from service.api.parts import Parts
from tests.api.caller import Caller, settings
from tests.store.desk import TURNABLE_CLOCK, Room

pytestmark = pytest.mark.anyio

KEY = "a-long-key-of-ada"
ADA = f"key-{sha256(KEY.encode()).hexdigest()[:12]}"


@pytest.fixture
async def ada(room: Room, store_url: str) -> AsyncIterator[Caller]:
    """Somebody with a key before an API that asks for one."""
    del room
    parts = Parts(settings(store_url, api_keys=KEY), TURNABLE_CLOCK)
    app = Door(fastapi_lane(parts), Doorkeeper([KEY]))
    async with parts.running(), Caller(app, authorization=f"Bearer {KEY}") as caller:
        yield caller


def changes(log: Sequence[EventDict]) -> list[dict[str, Any]]:
    """The lines that name who did it, without what every line has."""
    return [
        {name: value for name, value in line.items() if name not in ("log_level", "request_id")}
        for line in log
        if "actor" in line
    ]


async def test_every_change_of_a_campaign_is_logged_with_who_made_it_and_why(ada: Caller, log: list[EventDict]) -> None:
    await ada.open()
    await ada.tell("pause")
    await ada.tell("pause")
    await ada.tell("resume")
    await ada.change(4, max_coupons=9_000)
    await ada.tell("stop")
    common = {"event": "campaign changed", "campaign": "spring", "actor": ADA}
    assert changes(log) == [
        common | {"version": 2, "status": "running", "reason": "as planned"},
        common | {"version": 3, "status": "paused", "reason": "as planned"},
        common | {"version": 4, "status": "running", "reason": "as planned"},
        common | {"version": 5},
        common | {"version": 6, "status": "stopped", "reason": "as planned"},
    ]


async def test_deactivations_quotas_and_busy_merchants_are_logged_with_who_asked_but_not_with_whom_they_concern(
    ada: Caller, log: list[EventDict]
) -> None:
    await ada.open(max_quota_per_user=30)
    codes = [await ada.code("ann", key) for key in ("first", "second", "third")]
    log.clear()
    await ada.deactivate(codes[0])
    listed = {"codes": codes[:2], "reason": "stolen"}
    await ada.http.post("/v1/campaigns/spring/deactivations", json=listed)
    await ada.http.post("/v1/campaigns/spring/users/ann/deactivate", json={"reason": "a bot"})
    await ada.http.put("/v1/campaigns/spring/users/ann/quota", json={"max_coupons": 25, "reason": "loyal"})
    await ada.http.put("/v1/merchants/tea-house/busy", json={"for": "PT10M", "reason": "out of milk"})
    await ada.http.delete("/v1/merchants/tea-house/busy")
    deactivated = {"event": "coupons deactivated", "campaign": "spring", "actor": ADA}
    merchant = {"merchant": "tea-house", "campaign": None, "actor": ADA}
    told = changes(log)
    assert told == [
        deactivated | {"coupons": 1, "reason": "stolen"},
        deactivated | {"coupons": 2, "reason": "stolen"},
        deactivated | {"coupons": 3, "reason": "a bot"},
        {"event": "quota raised", "campaign": "spring", "max_coupons": 25, "reason": "loyal", "actor": ADA},
        merchant | {"event": "merchant is busy", "reason": "out of milk"},
        merchant | {"event": "merchant is not busy any more"},
    ]
    assert [name for name in (*codes, "ann", KEY) if name in str(told)] == []


async def test_where_no_key_is_asked_for_it_was_somebody_on_this_machine(api: Caller, log: list[EventDict]) -> None:
    await api.open()
    assert [line["actor"] for line in changes(log)] == ["local"]
