"""The API explains itself: every call of the contract stands in /openapi.json, and /docs shows it."""

import re
from typing import Any
from urllib.parse import urljoin

import pytest
from pydantic import SecretStr

from service.api.app import create_app
from service.domain.tickets import MAX_TICKET_LENGTH
from tests.api.caller import Caller, serving, settings
from tests.store.desk import Room

pytestmark = pytest.mark.anyio

CONTRACT = {
    ("/v1/campaigns", "post", "201", "Campaign"),
    ("/v1/campaigns", "get", "200", "CampaignList"),
    ("/v1/campaigns/{campaign_id}", "get", "200", "Campaign"),
    ("/v1/campaigns/{campaign_id}", "patch", "200", "Campaign"),
    ("/v1/campaigns/{campaign_id}/start", "post", "200", "Campaign"),
    ("/v1/campaigns/{campaign_id}/pause", "post", "200", "Campaign"),
    ("/v1/campaigns/{campaign_id}/resume", "post", "200", "Campaign"),
    ("/v1/campaigns/{campaign_id}/stop", "post", "200", "Campaign"),
    ("/v1/campaigns/{campaign_id}/coupons", "post", "201", "Coupon"),
    ("/v1/campaigns/{campaign_id}/tickets", "post", "201", "Ticket"),
    ("/v1/campaigns/{campaign_id}/tickets", "post", "200", "Ticket"),
    ("/v1/tickets/{ticket}", "get", "200", "Ticket"),
    ("/v1/campaigns/{campaign_id}/users/{user_id}/coupons", "get", "200", "CouponList"),
    ("/v1/coupons/{code}", "get", "200", "Coupon"),
    ("/v1/coupons/{code}/redemptions", "post", "201", "Redemption"),
    ("/v1/coupons/{code}/deactivate", "post", "200", "Coupon"),
    ("/v1/campaigns/{campaign_id}/deactivations", "post", "200", "Deactivation"),
    ("/v1/campaigns/{campaign_id}/users/{user_id}/deactivate", "post", "200", "Deactivation"),
    ("/v1/campaigns/{campaign_id}/users/{user_id}/quota", "put", "200", "Quota"),
    ("/v1/redemptions/{redemption_id}/commit", "post", "200", "Redemption"),
    ("/v1/redemptions/{redemption_id}/release", "post", "200", "Redemption"),
    ("/v1/redemptions/{redemption_id}/rollback", "post", "200", "Redemption"),
    ("/v1/campaigns/{campaign_id}/extensions", "post", "202", "Extension"),
    ("/v1/extensions/{extension_id}", "get", "200", "Extension"),
    ("/v1/extensions/{extension_id}/undo", "post", "202", "Extension"),
    ("/v1/outages", "post", "201", "Outage"),
    ("/v1/outages", "get", "200", "OutageList"),
    ("/v1/campaigns/{campaign_id}/imports", "post", "202", "Job"),
    ("/v1/jobs", "get", "200", "JobList"),
    ("/v1/jobs/{job_id}", "get", "200", "Job"),
    ("/v1/merchants/{merchant_id}/busy", "put", "200", "Merchant"),
    ("/v1/merchants/{merchant_id}/busy", "get", "200", "Merchant"),
    ("/v1/merchants/{merchant_id}/busy", "delete", "200", "Merchant"),
    ("/v1/status", "get", "200", "IssuanceStatus"),
    ("/v1/breaker", "put", "200", "Breaker"),
    ("/v1/webhooks", "post", "201", "NewWebhook"),
    ("/v1/webhooks", "get", "200", "WebhookList"),
    ("/v1/webhooks/{webhook_id}", "get", "200", "Webhook"),
    ("/v1/campaigns/{campaign_id}/breaker", "put", "200", "Breaker"),
}
WITHOUT_JSON = {("/v1/campaigns/{campaign_id}/events", "get"), ("/v1/webhooks/{webhook_id}", "delete")}
FILES = {f"/v1/campaigns/{{campaign_id}}/{what}.csv" for what in ("coupons", "redemptions")}
OTHER_PATHS = {"/metrics", "/livez", "/readyz", "/v1/status/stream"} | FILES


async def openapi(api: Caller) -> dict[str, Any]:
    answer = await api.http.get("/openapi.json")
    document: dict[str, Any] = answer.json()
    return document


async def test_every_call_of_the_contract_is_declared_with_what_it_answers(api: Caller) -> None:
    document = await openapi(api)
    calls = [(path, method) for path, operations in document["paths"].items() for method in operations]
    assert {call for call in calls if call[0] not in OTHER_PATHS} == {entry[:2] for entry in CONTRACT} | WITHOUT_JSON
    assert {path for path, _ in calls} >= OTHER_PATHS
    for path, method, status, model in CONTRACT:
        operation = document["paths"][path][method]
        assert operation["summary"]
        assert operation["description"]
        schema = operation["responses"][status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": f"#/components/schemas/{model}"}, path
        statuses = {entry[2] for entry in CONTRACT if entry[:2] == (path, method)}
        assert set(operation["responses"]) == {*statuses, "default"}, path


async def test_every_error_is_declared_as_a_problem(api: Caller) -> None:
    document = await openapi(api)
    for operations in document["paths"].values():
        for operation in operations.values():
            content = operation["responses"]["default"]["content"]
            assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert {"type", "title", "status", "detail", "reason"} <= set(
        document["components"]["schemas"]["Problem"]["required"]
    )


async def test_the_two_hot_calls_are_declared_with_body_and_headers(api: Caller) -> None:
    paths = (await openapi(api))["paths"]
    issue = paths["/v1/campaigns/{campaign_id}/coupons"]["post"]
    headers = [parameter for parameter in issue["parameters"] if parameter["in"] == "header"]
    assert [(header["name"], header["required"], header["schema"]["maxLength"]) for header in headers] == [
        ("Idempotency-Key", True, 255),
        ("Tidegate-Ticket", False, MAX_TICKET_LENGTH),
    ]
    for call, required in (
        (issue, {"user_id"}),
        (paths["/v1/coupons/{code}/redemptions"]["post"], {"merchant_id", "order_id"}),
    ):
        schema = call["requestBody"]["content"]["application/json"]["schema"]
        assert call["requestBody"]["required"] is True
        assert (set(schema["required"]), schema["additionalProperties"]) == (required, False)


async def test_without_keys_no_call_is_declared_to_ask_for_one(api: Caller) -> None:
    document = await openapi(api)
    assert "securitySchemes" not in document["components"]
    assert "security" not in document


async def test_with_keys_every_call_is_declared_to_ask_for_one_but_what_the_public_may_see(
    room: Room, store_url: str
) -> None:
    del room
    app = create_app(settings(store_url, api_keys=(SecretStr("first-key"),)))
    async with serving(app), Caller(app, authorization="Bearer first-key") as api:
        document = await openapi(api)
        open_to_all = {
            (path, method)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            if operation.get("security", document["security"]) == []
        }
        del api.http.headers["authorization"]
        for path, method in open_to_all - {("/v1/status/stream", "get")}:
            assert (await api.http.request(method, path)).status_code == 200, path
    ((name, scheme),) = document["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert document["security"] == [{name: []}]
    assert {path for path, _ in open_to_all} == {"/v1/status", "/v1/status/stream", "/livez", "/readyz"}


async def test_the_documents_are_a_page_that_needs_nothing_from_elsewhere(api: Caller) -> None:
    page = await api.http.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "://" not in page.text
    assert "url: 'openapi.json'" in page.text
    assert '"validatorUrl": null' in page.text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 3
    for address in loaded:
        asset = await api.http.get(urljoin("/docs", address))
        assert (asset.status_code, len(asset.content) > 1_000) == (200, True), address
    for address in ("redoc.standalone.js", "../__init__.py", "%2e%2e%2f__init__.py"):
        assert (await api.http.get(f"/docs/{address}")).status_code in (404, 422), address
