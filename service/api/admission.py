"""Who passes where people wait in line: what issue asks when a request shows a ticket, or its campaign has a line."""

import math
from dataclasses import dataclass

from service.api.parts import Parts
from service.api.problems import Answer, not_found, problem, retry_after
from service.api.refusals import issue_refusal, utc_text
from service.domain.outcomes import IssuancePaused, NotServed, StoreUnavailable
from service.domain.waiting_room import GRACE_MS, Called, GivenOn, InLine
from service.store.catalogue import KnownCampaign
from service.store.scripts import StoreError


@dataclass(frozen=True, slots=True)
class Admitted:
    """One who may pass: the claim that his request counts under, and as whom he was called, if he was."""

    claim: bytes
    called: Called | None = None


async def admit(
    parts: Parts, known: KnownCampaign, user_id: str, ticket: bytes, claim: bytes
) -> Admitted | Answer | NotServed:
    """Whether the request passes where people wait in line, why it must not, or why nobody can tell now.

    A ticket that has been called passes, and counts as the one claim it was taken for; a newcomer, without one,
    passes when nobody waits. Who has his coupon already is told so again in any case.
    """
    try:
        if not ticket:
            return await _admit_newcomer(parts, known, user_id, claim)
        return await _admit_ticket(parts, known, user_id, ticket.decode("latin-1"))
    except StoreError:
        return StoreUnavailable()


async def _admit_newcomer(
    parts: Parts, known: KnownCampaign, user_id: str, claim: bytes
) -> Admitted | Answer | NotServed:
    if not parts.breaker.admits(known.campaign.id, user_id):
        return _paused(parts, known, "breaker", parts.breaker.retry_after_s(known.campaign.id, user_id))
    sight = await parts.waiting_rooms.look(known)
    if sight is None or not sight.line.waiting:
        return Admitted(claim)
    if (again := await _admitted_again(parts, known, user_id, claim)) is not None:
        return again
    due = parts.waiting_rooms.due(known.campaign.id, sight, sight.line.waiting + 1)
    return _paused(parts, known, "operator" if sight.line.paused else "waiting_room", math.ceil(due.in_ms / 1000))


async def _admit_ticket(parts: Parts, known: KnownCampaign, user_id: str, text: str) -> Admitted | Answer | NotServed:
    ticket = parts.tickets.open(text)
    if ticket is None:
        return problem("ticket_invalid", "This is none of the service's tickets.")
    if (ticket.campaign_id, ticket.user_id) != (known.campaign.id, user_id):
        return problem("ticket_not_yours", "A ticket is good for the user and the campaign that it was taken for.")
    sight = await parts.waiting_rooms.look(known)
    if sight is None:
        return not_found()
    standing = parts.waiting_rooms.standing(sight, ticket.number)
    if isinstance(standing, Called):
        return Admitted(ticket.claim, standing)
    if (again := await _admitted_again(parts, known, user_id, ticket.claim)) is not None:
        return again
    if isinstance(standing, GivenOn):
        return problem("ticket_expired", "The place was called, not used, and given on. Take another ticket.")
    due = parts.waiting_rooms.due(known.campaign.id, sight, standing.position)
    expected_at = utc_text(parts.waiting_rooms.now_ms(sight) + due.in_ms)
    detail = f"The place is kept; it is expected to be called at {expected_at}."
    wait = retry_after(due.ask_again_in_ms / 1000)
    return problem("ticket_not_due", detail, wait, position=standing.position, expected_at=expected_at)


def _paused(parts: Parts, known: KnownCampaign, by: str, retry_after_s: int) -> Answer:
    outcome = IssuancePaused(by, retry_after_s)
    parts.metrics.count_unserved("issue", known, outcome)
    return issue_refusal(outcome)


def ask_again_in_s(parts: Parts, campaign_id: str, text: str) -> int:
    """When whoever shows a ticket while nobody is let in should ask again, so that his place is still his by then."""
    ticket, sight = parts.tickets.open(text), parts.waiting_rooms.lines.get(campaign_id)
    if ticket is not None and ticket.campaign_id == campaign_id and sight is not None:
        standing = parts.waiting_rooms.standing(sight, ticket.number)
        if isinstance(standing, InLine):
            due = parts.waiting_rooms.due(campaign_id, sight, standing.position)
            return max(1, math.ceil(due.ask_again_in_ms / 1000))
    return min(parts.breaker.retry_after_s(campaign_id), GRACE_MS // 2_000)


async def _admitted_again(
    parts: Parts, known: KnownCampaign, user_id: str, claim: bytes
) -> Admitted | NotServed | None:
    """One who has his coupon under the claim already, None if he has not, or why nobody can tell now."""
    claimed = await parts.waiting_rooms.is_claimed(known, user_id, claim)
    if isinstance(claimed, bool):
        return Admitted(claim) if claimed else None
    return claimed
