"""Why: tests say what a caller of the API says (`issue`, `redeem`, `pause`), not how a request is spelled."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, Self

import httpx
from starlette.types import ASGIApp, Message

from service.domain.breaker import BreakerPolicy
from service.domain.saturation import Signal, Threshold
from service.settings import Settings
from service.store.client import connect
from service.store.keys import BREAKER_BALLOTS, BREAKER_VITALS
from tests.store.desk import CLOCK_KEY, Room
from tests.store.server import StoreServer

NEVER: Final = Threshold(trip=1e9, clear=1e9)
PATIENT: Final = BreakerPolicy(
    hold_after_ms=10**11,
    **{signal.value: NEVER for signal in Signal},  # type: ignore[arg-type]
)
"""A breaker that no slow machine opens."""

CAMPAIGN: Final[dict[str, Any]] = {
    "id": "spring",
    "name": "Spring",
    "benefit": {"kind": "amount", "amount": 2500, "currency": "CNY", "min_order_amount": 0},
    "max_coupons": 10_000,
    "max_coupons_per_user": 21,
    "budget": {"amount": 10**9, "currency": "CNY"},
    "validity": {"timezone": "Asia/Shanghai", "expires_at": "2026-02-23T23:59:59.999+08:00"},
    "issue_rate": {"per_second": 1000, "burst": 10_000},
    "code_prefix": "QWEN",
}
"""A campaign that refuses nobody soon, as an operator sends it."""


def settings(store_url: str, **changes: Any) -> Settings:
    """The settings of an API over that store, with a patient breaker."""
    return Settings(**{"store_url": store_url, "code_secret": "sealed-" * 8, "breaker": PATIENT, **changes})


def reason(answer: httpx.Response) -> str:
    """The `reason` of a problem that is whole: all members there and in agreement."""
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["type"] == f"/problems/{problem['reason'].replace('_', '-')}"
    assert problem["status"] == answer.status_code
    assert problem["title"]
    assert problem["detail"]
    return str(problem["reason"])


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """The status and the `reason` of a refusal."""
    return answer.status_code, reason(answer)


def field_errors(answer: httpx.Response) -> dict[str, str]:
    """What a malformed request's problem says about each field."""
    assert refusal(answer) == (422, "invalid_request")
    return {error["field"]: error["message"] for error in answer.json()["errors"]}


async def contents(room: Room) -> dict[bytes, bytes | None]:
    """All keys with their contents, byte for byte, but for the time and the replicas' signs of life."""
    _, everything = await room.everything()
    passing = (CLOCK_KEY, BREAKER_BALLOTS, BREAKER_VITALS)
    return {key: held for key, held in everything.items() if key.decode() not in passing}


async def suspend(store: StoreServer) -> None:
    """Make a store hang, as a disk that does not answer would."""
    async with connect(store.url, timeout_ms=1_000) as client:
        os.kill((await client.info("server"))["process_id"], signal.SIGSTOP)


@asynccontextmanager
async def serving(app: ASGIApp) -> AsyncIterator[None]:
    """The app's lifespan, told to it as a server would."""
    told: asyncio.Queue[Message] = asyncio.Queue()
    said: asyncio.Queue[Message] = asyncio.Queue()
    life = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, told.get, said.put))
    told.put_nowait({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    yield
    told.put_nowait({"type": "lifespan.shutdown"})
    assert (await said.get())["type"] == "lifespan.shutdown.complete"
    await life


class Caller:
    """Somebody who calls the API, without a network in between."""

    def __init__(self, app: ASGIApp, **headers: str) -> None:
        transport = httpx.ASGITransport(app=app)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://tidegate.example", headers=headers)

    @classmethod
    def over(cls, http: httpx.AsyncClient) -> Self:
        """Somebody who calls the API over a client that is there already, such as one of a service that runs."""
        caller = cls.__new__(cls)
        caller.http = http
        return caller

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    async def create(self, **changes: Any) -> httpx.Response:
        """Create the campaign, with whatever a test wants changed; None leaves a field out."""
        body = {name: value for name, value in (CAMPAIGN | changes).items() if value is not None}
        return await self.http.post("/v1/campaigns", json=body)

    async def open(self, **changes: Any) -> None:
        """Create and start the campaign."""
        created = await self.create(**changes)
        assert created.status_code == 201, created.text
        assert (await self.tell("start", created.json()["id"])).status_code == 200

    async def campaign(self, campaign: str = "spring") -> dict[str, Any]:
        """The campaign as it stands."""
        answer = await self.http.get(f"/v1/campaigns/{campaign}")
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def tell(self, verb: str, campaign: str = "spring") -> httpx.Response:
        """`start`, `pause`, `resume` or `stop`."""
        return await self.http.post(f"/v1/campaigns/{campaign}/{verb}", json={"reason": "as planned"})

    async def change(self, version: int | str = 2, campaign: str = "spring", **fields: Any) -> httpx.Response:
        """Change the campaign from that version on; 2 is a campaign that was just opened."""
        headers = {"If-Match": str(version)}
        return await self.http.patch(f"/v1/campaigns/{campaign}", json=fields, headers=headers)

    async def issue(self, user: str = "ann", key: str = "first", campaign: str = "spring") -> httpx.Response:
        """One user's request under his idempotency key."""
        headers = {"Idempotency-Key": key}
        return await self.http.post(f"/v1/campaigns/{campaign}/coupons", json={"user_id": user}, headers=headers)

    async def code(self, user: str = "ann", key: str = "first") -> str:
        """The code of a coupon that the user gets."""
        issued = await self.issue(user, key)
        assert issued.status_code == 201, issued.text
        return str(issued.json()["code"])

    async def coupon(self, code: str) -> dict[str, Any]:
        """The coupon as it stands."""
        answer = await self.http.get(f"/v1/coupons/{code}")
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def redeem(self, code: str, order: str = "order-1", **more: Any) -> httpx.Response:
        """One order's request at the tea house, unless `more` names another merchant."""
        body = {"merchant_id": "tea-house", "order_id": order} | more
        return await self.http.post(f"/v1/coupons/{code}/redemptions", json=body)

    async def settle(self, verb: str, redemption_id: str) -> httpx.Response:
        """`commit`, `release` or `rollback`, without a word why."""
        return await self.http.post(f"/v1/redemptions/{redemption_id}/{verb}")

    async def deactivate(self, code: str) -> httpx.Response:
        """Deactivate one coupon."""
        return await self.http.post(f"/v1/coupons/{code}/deactivate", json={"reason": "stolen"})

    async def extend(self, until: str = "2026-02-28T23:59:59.999+08:00", **more: Any) -> httpx.Response:
        """Extend the validity of the campaign's coupons."""
        body = {"expires_at": until, "reason": "the holidays"} | more
        return await self.http.post("/v1/campaigns/spring/extensions", json=body)

    async def undo(self, extension: str, reason: str = "the wrong year") -> httpx.Response:
        """Take an extension back."""
        return await self.http.post(f"/v1/extensions/{extension}/undo", json={"reason": reason})

    async def override(self, mode: str, campaign: str | None = None, **more: Any) -> httpx.Response:
        """Put the breaker, or one campaign's, into that mode."""
        path = "/v1/breaker" if campaign is None else f"/v1/campaigns/{campaign}/breaker"
        return await self.http.put(path, json={"mode": mode, "reason": "a drill"} | more)

    async def metrics(self) -> str:
        """The text that Prometheus reads."""
        answer = await self.http.get("/metrics")
        assert answer.status_code == 200, answer.text
        return answer.text
