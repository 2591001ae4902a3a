"""Coupons and redemptions as CSV, for finance and for spreadsheets: streamed page by page, in constant memory.

Each row is as it stood when it was read. An export that breaks off in the middle ends without the last chunk of its
answer, so that no client takes half a file for a whole one.
"""

import asyncio
import csv
import time
from collections.abc import AsyncIterator, Callable, Sequence
from io import StringIO
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.api.door import PartsOf
from service.api.parts import Parts
from service.api.problems import Refused, not_found, problem, retry_after
from service.api.spelling import moment_text
from service.domain.codes import CouponAddress
from service.domain.coupon import Coupon, Redemption
from service.store.catalogue import KnownCampaign

router = APIRouter(prefix="/v1/campaigns", tags=["exports"])

COUPON_COLUMNS: Final = ("code", "user_id", "status", "issued_at", "starts_at", "expires_at", "drawn_amount")
REDEMPTION_COLUMNS: Final = (
    *("id", "code", "user_id", "merchant_id", "order_id"),
    *("status", "discount_amount", "currency", "at", "expires_at"),
)
FORMULA_BEGINS: Final = ("=", "+", "-", "@", "\t", "\r")
RETRY_S: Final = 30
CSV: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"text/csv": {"schema": {"type": "string"}}}}}

Row = Sequence[str | int]


class CsvResponse(StreamingResponse):
    """A streamed file; whether it ends or breaks off, its place is free for the next."""

    media_type = "text/csv"
    charset = "utf-8"

    def __init__(self, rows: AsyncIterator[str], name: str, total: int, places: asyncio.Semaphore) -> None:
        headers = {"content-disposition": f'attachment; filename="{name}"', "x-total-count": str(total)}
        super().__init__(rows, headers=headers)
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._places.release()


@router.get("/{campaign_id}/coupons.csv", response_class=Response, responses=CSV)
async def export_coupons(campaign_id: str, parts: PartsOf) -> CsvResponse:
    """Every coupon as it stands, a red envelope's with what it has drawn, in minor units.

    `X-Total-Count` is how many there are when the export begins.
    """
    known = await _find(parts, campaign_id)
    counters = (await parts.catalogue.ledger(known.campaign)).counters

    def row(coupon: Coupon, _redemption: Redemption | None) -> Row:
        zone = known.campaign.validity.timezone
        times = (coupon.issued_at_ms, coupon.starts_at_ms, coupon.expires_at_ms)
        code = known.codes.code(coupon.shard, coupon.sequence)
        drawn = "" if coupon.drawn_amount is None else coupon.drawn_amount
        return (code, coupon.user_id, coupon.status, *(moment_text(instant, zone) for instant in times), drawn)

    return await _respond(parts, known, "coupons", counters.issued, COUPON_COLUMNS, row)


@router.get("/{campaign_id}/redemptions.csv", response_class=Response, responses=CSV)
async def export_redemptions(campaign_id: str, parts: PartsOf) -> CsvResponse:
    """The latest redemption of every coupon that has one. `X-Total-Count` is how many are reserved or committed."""
    known = await _find(parts, campaign_id)
    counters = (await parts.catalogue.ledger(known.campaign)).counters

    def row(coupon: Coupon, redemption: Redemption | None) -> Row | None:
        if redemption is None:
            return None
        zone, held = known.campaign.validity.timezone, redemption.hold_expires_at_ms
        address = CouponAddress(coupon.shard, coupon.sequence)
        return (
            known.codes.redemption_id(address.shard, address.sequence, redemption.attempt),
            known.codes.code(coupon.shard, coupon.sequence),
            coupon.user_id,
            redemption.merchant_id,
            redemption.order_id,
            redemption.status,
            redemption.discount_amount,
            known.campaign.benefit.currency,
            moment_text(redemption.at_ms, zone),
            moment_text(held, zone) if held else "",
        )

    return await _respond(parts, known, "redemptions", counters.redeemed + counters.reserved, REDEMPTION_COLUMNS, row)


def csv_text(rows: Sequence[Row]) -> str:
    """The rows as RFC 4180 has them. A cell that a spreadsheet would take for a formula is told as text."""
    text = StringIO()
    csv.writer(text).writerows([_guarded(cell) for cell in row] for row in rows)
    return text.getvalue()


def _guarded(cell: str | int) -> str | int:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_BEGINS) else cell


async def _find(parts: Parts, campaign_id: str) -> KnownCampaign:
    known = await parts.catalogue.find(campaign_id)
    if known is None:
        raise Refused(not_found())
    return known


async def _respond(
    parts: Parts,
    known: KnownCampaign,
    what: str,
    total: int,
    columns: Sequence[str],
    row: Callable[[Coupon, Redemption | None], Row | None],
) -> CsvResponse:
    if parts.export_places.locked():
        raise Refused(problem("too_many_exports", "Try again when one has ended.", retry_after(RETRY_S)))
    await parts.export_places.acquire()
    lines = _lines(parts, known, columns, row)
    return CsvResponse(lines, f"{known.campaign.id}-{what}.csv", total, parts.export_places)


async def _lines(
    parts: Parts,
    known: KnownCampaign,
    columns: Sequence[str],
    row: Callable[[Coupon, Redemption | None], Row | None],
) -> AsyncIterator[str]:
    """The file, a page of coupons at a time; between pages the process serves others for as long as a page took."""
    yield csv_text([columns])
    for shard in range(known.campaign.shards):
        first: int | None = 0
        while first is not None:
            began_s = time.perf_counter()
            page = await parts.coupons.page(known, shard, first)
            rows = [row(coupon, redemption) for coupon, redemption in page.coupons]
            text = csv_text([cells for cells in rows if cells is not None])
            first = page.next_sequence
            await asyncio.sleep(time.perf_counter() - began_s)
            yield text
