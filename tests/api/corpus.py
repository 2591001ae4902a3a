"""Why: good and bad requests to issue and redeem, told as stories, each named after a refusal that occurs in it."""

import json
from typing import Any, Final

from service.api.vocabulary import MAX_BODY_BYTES
from service.domain.codes import CodeBook
from tests.api.caller import CAMPAIGN, settings
from tests.api.exchange import KEY, Ask

DAY_MS: Final = 86_400_000
COUPONS: Final = "/v1/campaigns/spring/coupons"
CODES: Final = CodeBook(settings("unix://nowhere").read_code_key(), "spring", "QWEN")
EVEN_SHARES: Final = {"kind": "red_envelope", "pot": 6, "shares": 2, "min_share": 3, "currency": "CNY"}
PERCENT: Final = {"kind": "percent", "percent": 33, "max_amount": 2500, "currency": "CNY"}
SLOW: Final = {"per_second": 0.3, "burst": 1}

Step = Ask | int
"""A request, or so many milliseconds that pass."""


def as_json(**fields: Any) -> bytes:
    """A body."""
    return json.dumps(fields).encode()


def padded(body: bytes, length: int) -> bytes:
    """The body with white space behind it."""
    return body.ljust(length)


def issue(user: str = "ann", key: bytes = b"first") -> Ask:
    """One user's request."""
    return Ask("POST", COUPONS, (as_json(user_id=user),), ((b"idempotency-key", key),))


def redeem(number: int = 0, order: str = "order-1", **more: Any) -> Ask:
    """One order's request with the coupon of that number."""
    body = {"merchant_id": "tea-house", "order_id": order} | more
    return Ask("POST", redemptions(code(number)), (as_json(**body),), ())


def post(path: str) -> Ask:
    """An operator's request, with nothing but a reason."""
    return Ask("POST", path, (as_json(reason="as planned"),))


def code(number: int) -> str:
    """The code of the coupon of that number."""
    return CODES.code(0, number)


def redemptions(spelled_code: str) -> str:
    """Where a coupon is redeemed."""
    return f"/v1/coupons/{spelled_code}/redemptions"


ANN, TEA = as_json(user_id="ann"), as_json(merchant_id="tea-house", order_id="order-1")
NO_JSON: Final = [
    *[b"", b" ", b"{", b"[]", b"null", b"1", b'"ann"', b"NaN", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"[" * 9_000],
    *[b'{"user_id":"ann"}{}', b'{"user_id":"ann",}', b"{'user_id':'ann'}", b'{"user_id":"\\ud800"}', b'{"\\ud800":1}'],
    b'{"user_id":%s}' % (b"9" * 5_000),
]
WRONG_USERS: Final[list[Any]] = [
    *[None, 1, 10**30, True, [], {}, ["ann"], "", " ", "a" * 64, "a" * 65, "a/b", "a\nb", "ann\n", "a\x00"],
    *["Å", "🧧", "-a", "a b", "a.b_c~d:e@f+g-h"],
]
BODIES: Final = [
    *NO_JSON,
    *[as_json(user_id=user) for user in WRONG_USERS],
    *[b"{}", b'{"user_id":"ann","user_id":"bob"}', as_json(user_id="ann", extra=1), b'{"user_id":NaN}'],
    as_json(**{f"field-{number}": 1 for number in range(900)}),
    *[padded(body, length) for body in (ANN, TEA) for length in (MAX_BODY_BYTES, MAX_BODY_BYTES + 1)],
    b"x" * 100_000,
    *[as_json(merchant_id=wrong, order_id="order-1") for wrong in (None, 1, "a/b", "a" * 65, "é")],
    *[as_json(merchant_id="m", order_id="o", order_amount=wrong) for wrong in (0, -1, 10**30, 1.5, "1", None)],
    *[as_json(merchant_id="m", order_id="o", hold=wrong) for wrong in (None, 1, "true")],
    *[as_json(merchant_id="m", order_id="o", hold=True, hold_for=wrong) for wrong in ("", "PT0S", "P2D", 9)],
    as_json(merchant_id="m", order_id="o", hold_for="PT1M"),
]
CAMPAIGN_NAMES: Final = [
    *["autumn", "SPRING", "s%70ring", "spr%2Fing", "sp%0Aring", "%F0%9F%A7%A7", "", "%20", "..", "%00", "spring%3F"],
    *["a" * 41, "a" * 5_000],
]
SPELLED_CODES: Final = [
    *[code(0).lower(), code(0).replace("-", ""), code(0).replace("-", "%20"), code(99), code(0)[:-1], f"{code(0)}0"],
    *[code(0).replace("QWEN", "QWER"), "x", "%00", "%E2%82%AC", "a%2Fb", "", "-" * 20, "Q" * 5_000],
]
TARGETS: Final = [
    *[f"/v1/campaigns/{name}/coupons" for name in CAMPAIGN_NAMES],
    *[COUPONS + end for end in ("/", "//", "?a=b", "?", "%0A", "%2F", ";a")],
    *["/v1/campaigns/coupons", "//v1/campaigns/spring/coupons", "/V1/campaigns/spring/coupons"],
    *[redemptions(spelled) for spelled in SPELLED_CODES],
    *[redemptions(code(0)) + end for end in ("/", "?a=b", "%0A")],
]
KEYS: Final = [
    (),
    *[((b"idempotency-key", key),) for key in (b"", b"k", b"k" * 255, b"k" * 256, b"\xff", b"a, b")],
    (KEY, (b"idempotency-key", b"other")),
]
SITES: Final = [
    *[(b"sec-fetch-site", site) for site in (b"cross-site", b"same-site", b"same-origin", b"none", b"")],
    *[(b"origin", origin) for origin in (b"http://evil.example", b"http://tidegate.example", b"null", b"")],
]
LENGTHS: Final = [b"16384", b"16385", b"9" * 20, b"9" * 5_000, b"-1", b"many", b""]

STORIES: Final[dict[str, tuple[dict[str, Any], list[Step]]]] = {
    "invalid_request": (
        {},
        [issue(), *[Ask("POST", target, (body,)) for body in BODIES for target in (COUPONS, redemptions(code(0)))]],
    ),
    "not_found": ({}, [issue(), *[Ask("POST", target, (body,)) for target in TARGETS for body in (ANN, TEA, b"{")]]),
    "method_not_allowed": (
        {},
        [
            Ask(method, target, (ANN,))
            for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post")
            for target in (COUPONS, redemptions(code(0)))
        ],
    ),
    "idempotency_key_required": ({}, [Ask("POST", COUPONS, (ANN,), headers) for headers in KEYS]),
    "cross_site": (
        {},
        [
            issue(),
            *[
                Ask("POST", target, (body,), (KEY, site))
                for site in SITES
                for target, body in ((COUPONS, ANN), (redemptions(code(0)), TEA))
            ],
            Ask("PUT", "/v1/breaker", (as_json(mode="forced_open", reason="a drill"),)),
            *[Ask("POST", COUPONS, (ANN,), (KEY, site)) for site in SITES],
        ],
    ),
    "body_too_large": (
        {},
        [
            Ask("POST", COUPONS, (ANN[:5], b"", ANN[5:])),
            Ask("POST", COUPONS, tuple(bytes([byte]) for byte in padded(ANN, 200))),
            Ask("POST", COUPONS, (b" " * MAX_BODY_BYTES, ANN)),
            *[Ask("POST", COUPONS, (ANN,), (KEY, (b"content-length", length))) for length in LENGTHS],
            *[Ask("POST", target, (ANN,), hangs_up=True) for target in (COUPONS, redemptions(code(0)))],
            Ask("POST", COUPONS, (ANN,), (KEY, (b"content-type", b"text/plain"), (b"accept", b"text/html"))),
        ],
    ),
    "per_user_limit": ({"max_coupons_per_user": 1}, [issue(), issue(key=b"second"), issue()]),
    "sold_out": (
        {"benefit": EVEN_SHARES, "max_coupons": 2, "budget": None},
        [issue(), issue("bob"), issue("eve"), issue(), redeem(), redeem(1, order_amount=2)],
    ),
    "budget_exhausted": ({"budget": {"amount": 2500, "currency": "CNY"}}, [issue(), issue("bob"), issue()]),
    "rate_limited": (
        {"issue_rate": SLOW | {"burst": 2}},
        [issue(), issue("bob"), issue("eve"), issue()],
    ),
    "merchant_busy": (
        {"merchant_rate": SLOW},
        [
            *[issue(), issue("bob"), issue("eve"), redeem(0), redeem(1), redeem(0)],
            Ask("PUT", "/v1/merchants/tea-house/busy", (as_json(reason="out of milk", **{"for": "PT10M"}),)),
            *[redeem(1), redeem(0)],
        ],
    ),
    "campaign_not_running": ({}, [issue(), post("/v1/campaigns/spring/stop"), issue("bob"), issue(), redeem()]),
    "issuance_paused": (
        {},
        [
            *[issue(), post("/v1/campaigns/spring/pause"), issue("bob"), issue(), redeem()],
            Ask("PUT", "/v1/breaker", (as_json(mode="forced_open", reason="a drill"),)),
            *[Ask("POST", COUPONS, (body,)) for body in BODIES],
            *[Ask("POST", target, (ANN,)) for target in TARGETS],
            *[Ask("POST", COUPONS, (ANN,), headers) for headers in KEYS],
            redeem(),
        ],
    ),
    "already_redeemed": ({}, [issue(), redeem(), redeem(), redeem(order="order-2"), issue()]),
    "reserved_elsewhere": (
        {},
        [issue(), redeem(hold=True, hold_for="PT1M"), redeem(hold=True), redeem(), redeem(order="order-2")],
    ),
    "order_too_small": (
        {"benefit": CAMPAIGN["benefit"] | {"min_order_amount": 100}},
        [issue(), redeem(order_amount=99), redeem(order_amount=10**14)],
    ),
    "order_amount_required": ({"benefit": PERCENT}, [issue(), redeem(), redeem(order_amount=999)]),
    "per_order_limit": (
        {"max_coupons_per_order": 1},
        [issue(), issue("bob"), redeem(), redeem(1), redeem(), redeem(1, "order-2")],
    ),
    "per_merchant_limit": (
        {"max_redemptions_per_merchant": 1},
        [issue(), issue("bob"), redeem(), redeem(1, "order-2"), redeem(1, merchant_id="book-shop")],
    ),
    "daily_limit": ({"max_coupons_per_day": 1}, [issue(), issue("bob"), issue(), DAY_MS, issue("bob")]),
    "per_user_daily_limit": (
        {"max_coupons_per_user_per_day": 1},
        [issue(), issue(key=b"second"), issue(), DAY_MS, issue(key=b"second")],
    ),
    "not_yet_valid": ({"validity": CAMPAIGN["validity"] | {"starts_at": "2026-02-07T00:00:00Z"}}, [issue(), redeem()]),
    "expired": ({}, [issue(), 30 * DAY_MS, redeem(), issue(), issue("bob")]),
    "deactivated": ({}, [issue(), post(f"/v1/coupons/{code(0)}/deactivate"), redeem(), issue()]),
    "too_many_attempts": (
        {},
        [
            *[issue(), redeem()],
            post(f"/v1/redemptions/{CODES.redemption_id(0, 0, 1)}/rollback"),
            redeem(),
        ],
    ),
}
