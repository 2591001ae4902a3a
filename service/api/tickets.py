"""The waiting room over HTTP: take a ticket, ask where it stands, and pass with it when its time has come."""

import math
import secrets
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Annotated, Final, assert_never

from fastapi import APIRouter, Header, Path, Response

from service.api.door import PartsOf
from service.api.hot_calls import DIGEST_BYTES, MAX_KEY_BYTES
from service.api.parts import Parts
from service.api.problems import Refused, not_found, problem, retry_after
from service.api.refusals import issue_refusal, not_served
from service.api.wire import Ticket, TicketRequest, TicketStatus
from service.domain.outcomes import CampaignNotRunning, Overloaded, StoreUnavailable, UnknownCampaign
from service.domain.tickets import CLAIM_BYTES, MAX_TICKET_LENGTH
from service.domain.tickets import Ticket as SealedTicket
from service.domain.waiting_room import MAX_WAITING, Called, GivenOn, InLine
from service.gate.waiting_room import Place, RoomFull, Sight, StraightIn
from service.store.catalogue import KnownCampaign

router = APIRouter(prefix="/v1", tags=["waiting room"])

FULL_ROOM_SPREAD_S: Final = 30
"""Whoever finds the waiting room full comes back spread over so many seconds."""

CampaignName = Annotated[str, Path(max_length=64, description="The campaign's id")]
RequestKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=MAX_KEY_BYTES,
        description="Of the request that the place is for. Without one the ticket itself is the key: any request "
        "with it gets the same coupon.",
    ),
]


@router.post(
    "/campaigns/{campaign_id}/tickets",
    status_code=201,
    responses={200: {"model": Ticket, "description": "No ticket: nobody waits"}},
)
async def take_ticket(
    campaign_id: CampaignName, request: TicketRequest, parts: PartsOf, response: Response, key: RequestKey = None
) -> Ticket:
    """Take a place in line before the start, or while issuance is paused or recovers.

    200 without a ticket: nobody waits, go straight in.
    """
    known = await parts.catalogue.find(campaign_id)
    if known is None:
        raise Refused(not_found())
    outcome = await parts.waiting_rooms.take(known)
    match outcome:
        case Place(number):
            claim = secrets.token_bytes(CLAIM_BYTES) if key is None else _claim_of(key)
            ticket = SealedTicket(known.campaign.id, number, claim, request.user_id)
            sealed = parts.tickets.seal(ticket)
            sight = await parts.waiting_rooms.look(known)
            if sight is None:
                raise Refused(not_found())
            response.headers["location"] = f"/v1/tickets/{sealed}"
            return _shown(parts, sight, sealed, ticket, response)
        case StraightIn():
            response.status_code = 200
            response.headers["cache-control"] = "no-store"
            return Ticket(
                ticket=None,
                campaign_id=known.campaign.id,
                user_id=request.user_id,
                status="admitted",
                position=0,
                expected_at=_moment(await parts.catalogue.now_ms()),
                admitted_until=None,
                retry_after_s=0,
            )
        case RoomFull():
            detail = f"The waiting room holds {MAX_WAITING} people at most; come back in a moment."
            raise Refused(problem("waiting_room_full", detail, retry_after(1, FULL_ROOM_SPREAD_S)))
        case CampaignNotRunning():
            raise Refused(issue_refusal(outcome))
        case UnknownCampaign():
            raise Refused(not_found())
        case Overloaded() | StoreUnavailable():
            raise Refused(not_served(outcome))
        case _:
            assert_never(outcome)


@router.get("/tickets/{ticket}")
async def read_ticket(
    ticket: Annotated[str, Path(max_length=MAX_TICKET_LENGTH)], parts: PartsOf, response: Response
) -> Ticket:
    """Where a ticket stands. Asking early, often or not at all costs no place, until it is called."""
    opened = parts.tickets.open(ticket)
    known = None if opened is None else await parts.catalogue.find(opened.campaign_id)
    sight = None if known is None else await parts.waiting_rooms.look(known)
    if opened is None or known is None or sight is None:
        raise Refused(not_found())
    shown = _shown(parts, sight, ticket, opened, response)
    if shown.status != "waiting" and await _is_used(parts, known, opened):
        return shown.model_copy(update={"status": "used"})
    return shown


async def _is_used(parts: Parts, known: KnownCampaign, ticket: SealedTicket) -> bool:
    outcome = await parts.waiting_rooms.is_claimed(known, ticket.user_id, ticket.claim)
    if isinstance(outcome, bool):
        return outcome
    raise Refused(not_served(outcome))


def _claim_of(key: str) -> bytes:
    # As it stood in the request's head, which Starlette reads as Latin-1.
    return blake2b(key.encode("latin-1"), digest_size=DIGEST_BYTES).digest()


def _shown(parts: Parts, sight: Sight, sealed: str, ticket: SealedTicket, response: Response) -> Ticket:
    rooms = parts.waiting_rooms
    status: TicketStatus
    position, due_in_ms, wait_s, admitted_until = 0, 0, 0, None
    standing = rooms.standing(sight, ticket.number)
    match standing:
        case InLine():
            status, position = "waiting", standing.position
            due = rooms.due(ticket.campaign_id, sight, position)
            due_in_ms, wait_s = due.in_ms, max(1, math.ceil(due.ask_again_in_ms / 1000))
            response.headers["retry-after"] = str(wait_s)
        case Called():
            status, admitted_until = "admitted", _moment(standing.until_ms)
        case GivenOn():
            status = "expired"
        case _:
            assert_never(standing)
    response.headers["cache-control"] = "no-store"
    return Ticket(
        ticket=sealed,
        campaign_id=ticket.campaign_id,
        user_id=ticket.user_id,
        status=status,
        position=position,
        expected_at=_moment(rooms.now_ms(sight) + due_in_ms),
        admitted_until=admitted_until,
        retry_after_s=wait_s,
    )


def _moment(instant_ms: int) -> datetime:
    return datetime.fromtimestamp(instant_ms / 1000, UTC)
