"""Outages over HTTP: an operator records when redemption was down, and campaigns that stop the clock give it back."""

from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi import APIRouter

from service.api.actor import Actor
from service.api.door import PartsOf
from service.api.extension_wire import Outage, OutageList, OutageRequest
from service.api.problems import Refused, invalid, problem
from service.api.vocabulary import milliseconds
from service.domain import extension as domain
from service.store.outages import Overlaps, TooManyOutages

router = APIRouter(prefix="/v1/outages", tags=["outages"])

_LONGEST: Final = timedelta(days=domain.MAX_OUTAGE_DAYS)


@router.post("", status_code=201)
async def record_outage(request: OutageRequest, parts: PartsOf, actor: Actor) -> Outage:
    """Record an outage that is over. Within seconds it extends what was valid meanwhile, by exactly its length."""
    from_ms, to_ms = milliseconds(request.from_), milliseconds(request.to)
    if to_ms <= from_ms:
        raise _malformed("to", "must be later than from")
    if to_ms - from_ms > _LONGEST / timedelta(milliseconds=1):
        raise _malformed("to", f"is more than {domain.MAX_OUTAGE_DAYS} days after from")
    if to_ms > await parts.catalogue.now_ms():
        raise _malformed("to", "is in the future: record an outage when it is over")
    try:
        recorded = await parts.extensions.outages.record(from_ms, to_ms, request.reason, actor)
    except TooManyOutages:
        raise Refused(problem("too_many_outages", f"There are {domain.MAX_OUTAGES} outages.")) from None
    if isinstance(recorded, Overlaps):
        detail = f"Part of that time is outage {recorded.number} already."
        raise Refused(problem("outage_overlaps", detail, number=recorded.number))
    return _body(recorded)


@router.get("")
async def list_outages(parts: PartsOf) -> OutageList:
    """The outages in the order in which they were recorded."""
    return OutageList(outages=[_body(outage) for outage in await parts.extensions.outages.all()])


def _malformed(field: str, message: str) -> Refused:
    return Refused(invalid([{"loc": [field], "msg": message}]))


def _body(outage: domain.Outage) -> Outage:
    return Outage.model_validate(
        {
            "number": outage.number,
            "from": datetime.fromtimestamp(outage.from_ms / 1000, UTC),
            "to": datetime.fromtimestamp(outage.to_ms / 1000, UTC),
            "reason": outage.reason,
            "actor": outage.actor,
        }
    )
