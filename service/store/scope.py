"""Whom an extension concerns, in the form in which the scripts read it (lua/fragments/scope.lua)."""

from typing import Any

import msgpack

from service.domain.extension import Scope


def pack_scope(scope: Scope | None) -> bytes:
    """The scope as the scripts read it; what narrows nothing down is left out, and no scope is empty."""
    if scope is None:
        return b""
    fields = {
        "issued_from": scope.issued_from_ms,
        "issued_to": scope.issued_to_ms,
        "expiring_before": scope.expiring_before_ms,
        "user_ids": scope.user_ids,
        "merchant_id": scope.merchant_id,
    }
    packed: bytes = msgpack.packb({name: value for name, value in fields.items() if value is not None})
    return packed


def unpack_scope(packed: bytes) -> Scope | None:
    """From that form; None for every coupon, and for lost time, whose coupons are told by its outage."""
    fields: dict[str, Any] = msgpack.unpackb(packed) if packed else {}
    if not fields or "lost_from" in fields:
        return None
    users = fields.get("user_ids")
    return Scope(
        issued_from_ms=fields.get("issued_from"),
        issued_to_ms=fields.get("issued_to"),
        expiring_before_ms=fields.get("expiring_before"),
        user_ids=None if users is None else tuple(users),
        merchant_id=fields.get("merchant_id"),
    )
