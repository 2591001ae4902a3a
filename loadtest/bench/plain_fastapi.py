"""Why: the first baseline: the issue call as FastAPI's and redis-py's own documentation teaches to write it.

Models in and out, one pool, one registered script, a hash for each coupon. Run by uvicorn with uvloop and httptools.
"""

import os
import secrets
from base64 import b32encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, StringConstraints
from redis.asyncio import Redis

ISSUE: Final = Path(__file__).with_name("one_script.lua").read_text()
MAX_CONNECTIONS: Final = 512
STATUSES: Final = {"unknown_campaign": 404, "rate_limited": 429, "issuance_paused": 503}
"""The statuses of refusals; all others are 409."""


class IssueBody(BaseModel):
    """Who wants a coupon."""

    model_config = ConfigDict(extra="forbid")

    user_id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._~:@+-]{0,63}$")]


class Benefit(BaseModel):
    """What a coupon is worth."""

    kind: Literal["amount"] = "amount"
    amount: int
    currency: str
    min_order_amount: int


class Coupon(BaseModel):
    """One coupon."""

    code: str
    campaign_id: str
    user_id: str
    status: Literal["issued"] = "issued"
    benefit: Benefit
    issued_at: datetime
    starts_at: datetime
    expires_at: datetime


class Campaign(BaseModel):
    """What never changes about a campaign, read once."""

    code_prefix: str
    zone: ZoneInfo
    benefit: Benefit

    model_config = ConfigDict(arbitrary_types_allowed=True)


class Refused(Exception):
    """No coupon was issued, for `reason`."""

    def __init__(self, reason: str, retry_after_ms: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_ms = retry_after_ms


class Desk:
    """Issues coupons from one store."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._issue = redis.register_script(ISSUE)
        self._campaigns: dict[str, Campaign] = {}

    async def campaign(self, campaign_id: str) -> Campaign:
        """The campaign, from memory where possible. Raises Refused."""
        campaign = self._campaigns.get(campaign_id)
        if campaign is None:
            found: Mapping[Any, Any] = await self._redis.hgetall(f"campaign:{{{campaign_id}}}")
            if not found:
                raise Refused("unknown_campaign")
            benefit = Benefit(
                amount=found["amount"], currency=found["currency"], min_order_amount=found["min_order_amount"]
            )
            campaign = Campaign(code_prefix=found["code_prefix"], zone=ZoneInfo(found["timezone"]), benefit=benefit)
            self._campaigns[campaign_id] = campaign
        return campaign

    async def issue(self, campaign_id: str, user_id: str, key: str) -> tuple[Coupon, bool]:
        """A coupon for the user, and whether he had it already for this key. Raises Refused."""
        campaign = await self.campaign(campaign_id)
        new_code = f"{campaign.code_prefix}-{b32encode(secrets.token_bytes(10)).decode()}"
        coupons = f"coupon:{{{campaign_id}}}:"
        word, *answer = await self._issue(
            keys=[
                f"campaign:{{{campaign_id}}}",
                f"user:{{{campaign_id}}}:{user_id}",
                coupons + new_code,
                f"events:{{{campaign_id}}}",
            ],
            args=[key, new_code, user_id, coupons],
        )
        if word not in ("issued", "replayed"):
            raise Refused(word, *answer)
        code, issued_at_ms, expires_at_ms = answer
        issued_at = datetime.fromtimestamp(int(issued_at_ms) / 1000, campaign.zone)
        coupon = Coupon(
            code=code,
            campaign_id=campaign_id,
            user_id=user_id,
            benefit=campaign.benefit,
            issued_at=issued_at,
            starts_at=issued_at,
            expires_at=datetime.fromtimestamp(int(expires_at_ms) / 1000, campaign.zone),
        )
        return coupon, word == "replayed"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep one pool of connections for as long as the application runs."""
    async with Redis.from_url(os.environ["STORE_URL"], decode_responses=True, max_connections=MAX_CONNECTIONS) as redis:
        app.state.desk = Desk(redis)
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/campaigns/{campaign_id}/coupons", status_code=201)
async def issue(
    campaign_id: str,
    body: IssueBody,
    idempotency_key: Annotated[str, Header(min_length=1, max_length=255)],
    request: Request,
    response: Response,
) -> Coupon:
    """Issue one coupon, once for each idempotency key of a user."""
    desk: Desk = request.app.state.desk
    coupon, replayed = await desk.issue(campaign_id, body.user_id, idempotency_key)
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return coupon


@app.exception_handler(Refused)
async def refused(_request: Request, refusal: Refused) -> JSONResponse:
    """Why no coupon was issued, as a problem."""
    status = STATUSES.get(refusal.reason, 409)
    problem = {
        "type": f"/problems/{refusal.reason.replace('_', '-')}",
        "title": refusal.reason.replace("_", " ").capitalize(),
        "status": status,
        "reason": refusal.reason,
    }
    headers = {} if refusal.retry_after_ms is None else {"Retry-After": str(ceil(refusal.retry_after_ms / 1000))}
    return JSONResponse(problem, status, headers, "application/problem+json")
