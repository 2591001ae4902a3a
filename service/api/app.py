"""The ASGI application: FastAPI behind the exchange and the door; and the fast lane, which it hands to the server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from service import __version__
from service.api import (
    campaigns,
    coupons,
    deactivations,
    docs,
    events,
    exports,
    extensions,
    imports,
    jobs,
    merchants,
    operations,
    outages,
    quotas,
    status,
    tickets,
    webhooks,
)
from service.api.complaints import words_of
from service.api.cross_site import OwnPagesOnly
from service.api.door import PUBLIC_PATHS, AnswerResponse, Door, Doorkeeper
from service.api.exchange import Exchange, body_too_large
from service.api.fast_lane import LANE, FastLane
from service.api.parts import Parts
from service.api.problems import Refused, internal_error, invalid, not_found, problem
from service.api.process_group import ProcessGroup
from service.api.refusals import not_served
from service.api.wire import Problem
from service.domain.outcomes import StoreUnavailable
from service.settings import Settings
from service.store.scripts import StoreError

log = structlog.get_logger()

DESCRIPTION = (
    "Issues and redeems coupons for campaigns that everybody joins in the same minute. It never gives out more than "
    "was promised, pauses issuance by itself before it breaks, and keeps redemption open meanwhile."
)


BEARER: Final = {"type": "http", "scheme": "bearer", "description": "One of the service's API keys."}


class DocumentedApp(FastAPI):
    """FastAPI, but its document shows errors as the problems that they are, and where a key is asked for."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        document = super().openapi()
        if self.state.parts.settings.api_keys:
            _ask_for_keys(document)
        for operations_of_path in document["paths"].values():
            for operation in operations_of_path.values():
                errors = operation["responses"]["default"]
                errors["content"] = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        return document


def _ask_for_keys(document: dict[str, Any]) -> None:
    """Declare what the door does."""
    document["components"]["securitySchemes"] = {"api_key": BEARER}
    document["security"] = [{"api_key": []}]
    for path in PUBLIC_PATHS & document["paths"].keys():
        for operation in document["paths"][path].values():
            operation["security"] = []


def create_app(settings: Settings) -> ASGIApp:
    """The whole application. Its lifespan keeps the breaker at work; the store must be up when it begins."""
    parts = Parts(settings)
    keys = [key.get_secret_value() for key in settings.api_keys]
    doorkeeper = Doorkeeper(keys) if keys else None
    served = fastapi_lane(parts, FastLane(parts, doorkeeper))
    if settings.serve_only is not None:
        served = ProcessGroup(served, settings.serve_only)
    return served if doorkeeper is None else Door(served, doorkeeper)


def fastapi_lane(parts: Parts, fast_lane: FastLane | None = None) -> ASGIApp:
    """Everything over FastAPI, issue and redeem too. The server's connections are handed the fast lane, if any."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with parts.running():
            yield {LANE: fast_lane}

    app = DocumentedApp(
        title="Tidegate",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
        responses={"default": {"model": Problem, "description": "A problem (RFC 9457)"}},
        docs_url=None,
        redoc_url=None,
    )
    app.state.parts = parts
    for part in (
        *(campaigns, coupons, deactivations, quotas, tickets, extensions, outages, jobs, imports, exports),
        *(events, webhooks, merchants, status, operations, docs),
    ):
        app.include_router(part.router)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(StoreError, _store_unavailable)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal_error)
    # A browser shows no key unasked: where keys are asked for, another site's page does not come as far as this.
    return Exchange(app if parts.settings.api_keys else OwnPagesOnly(app), parts.metrics)


async def _refused(_request: Request, error: Any) -> AnswerResponse:
    return AnswerResponse(error.answer)


async def _store_unavailable(_request: Request, error: Any) -> AnswerResponse:
    log.warning("the store failed a request", error=words_of(str(error)))
    return AnswerResponse(not_served(StoreUnavailable()))


async def _invalid(_request: Request, error: Any) -> AnswerResponse:
    return AnswerResponse(invalid(error.errors()))


async def _http_error(_request: Request, error: Any) -> AnswerResponse:
    headers = tuple((name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items())
    match error.status_code:
        case 400:
            return AnswerResponse(invalid([{"loc": ["body"], "msg": "cannot be read as JSON"}]))
        case 404:
            return AnswerResponse(not_found())
        case 405:
            return AnswerResponse(problem("method_not_allowed", "See /docs for what can be done here.", headers))
        case 413:
            return AnswerResponse(body_too_large())
        case _:
            return AnswerResponse(problem("internal_error", str(error.detail), headers))


async def _internal_error(_request: Request, _error: Any) -> AnswerResponse:
    return AnswerResponse(internal_error())
