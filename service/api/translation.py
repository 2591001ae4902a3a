"""Campaigns between the wire's words and the domain's values, both ways."""

from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from service.api.benefits import RedEnvelopeBenefit, benefit_body, benefit_value
from service.api.campaign_wire import Campaign, CampaignChange, CampaignRequest, Counters
from service.api.limits import LIMIT_FIELDS, changed_limits, daily_limits, holder_limits, limits_body
from service.api.problems import Refused, invalid
from service.api.spelling import moment_text
from service.api.validity_translation import read_validity, validity_body
from service.api.vocabulary import IssueCoupling, IssueWindow, Money, Rate, milliseconds
from service.domain import campaign as domain
from service.domain import money
from service.domain.benefit import RedEnvelope
from service.domain.validity import FixedValidity, usable_at
from service.store.catalogue import CampaignLedger

CODE_PREFIX_LENGTH: Final = 8


def new_campaign(request: CampaignRequest, now_ms: int, wanted_shards: int) -> domain.Campaign:
    """The draft that a request describes. Raises Refused where it ends before it begins."""
    expires_at, window = request.validity.expires_at, request.issue_window
    if expires_at is not None and milliseconds(expires_at) <= now_ms:
        raise _refused("validity.expires_at", "is in the past")
    if window is not None and milliseconds(window.ends_at) <= now_ms:
        raise _refused("issue_window.ends_at", "is in the past")
    campaign = domain.Campaign(
        id=request.id,
        name=request.name,
        status=domain.CampaignStatus.DRAFT,
        version=1,
        benefit=benefit_value(request.benefit),
        max_coupons=request.max_coupons,
        max_coupons_per_user=request.max_coupons_per_user,
        max_quota_per_user=request.max_quota_per_user,
        daily_limits=daily_limits(request, request.validity.timezone, now_ms),
        holder_limits=holder_limits(request),
        budget=_budget(request),
        issue_window=_window(window),
        validity=read_validity(request.validity, now_ms),
        issue_rate=money.Rate(_thousandths(request.issue_rate.per_second), request.issue_rate.burst),
        user_rate=_rate(request.user_rate),
        merchant_rate=_rate(request.merchant_rate),
        redemptions_per_second_milli=_coupling(request.issue_coupling),
        code_prefix=request.code_prefix or _code_prefix(request.id),
        shards=1,
        user_buckets=1,
        created_at_ms=now_ms,
        stop_the_clock=request.validity.stop_the_clock,
        imported_codes=0 if request.codes == "imported" else None,
        status_since_ms=now_ms,
        messages=request.messages,
    )
    _check(campaign)
    _check_usable(campaign)
    shards = 1 if request.codes == "imported" else domain.shards_for(wanted_shards, campaign)
    return replace(campaign, shards=shards, user_buckets=domain.user_buckets_for(campaign.max_coupons, shards))


def changed_campaign(old: domain.Campaign, change: CampaignChange) -> domain.Campaign:
    """The campaign's next version. Raises Refused where the change does not fit it."""
    fields: dict[str, Any] = changed_limits(old, change)
    if isinstance(old.benefit, RedEnvelope) and change.model_fields_set & {"max_coupons", "budget"}:
        raise _refused("body", "a red envelope keeps its pot and its shares")
    for name in change.model_fields_set - LIMIT_FIELDS:
        match getattr(change, name):
            case Money(currency=currency) if currency != old.benefit.currency:
                raise _refused("budget.currency", f"must be {old.benefit.currency}, as the benefit is")
            case Money() as budget:
                fields[name] = _money(budget)
            case Rate() as rate:
                fields[name] = _rate(rate)
            case IssueCoupling() as coupling:
                fields["redemptions_per_second_milli"] = _coupling(coupling)
            case None if name == "issue_coupling":
                fields["redemptions_per_second_milli"] = None
            case value:
                fields[name] = value
    new = replace(old, **fields, version=old.version + 1)
    _check(new)
    if new.imported_codes and new.max_coupons > new.imported_codes:
        raise _refused("max_coupons", f"must be at most {new.imported_codes}: so many codes were imported")
    if domain.shards_for(old.shards, new) < old.shards:
        raise _refused("body", f"each of the campaign's {old.shards} shards needs a part of every limit and rate")
    return new


def campaign_body(ledger: CampaignLedger) -> Campaign:
    """The campaign with its live counters, as the wire has it."""
    campaign, counters = ledger.campaign, ledger.counters
    zone, window, budget = campaign.validity.timezone, campaign.issue_window, campaign.budget
    return Campaign.model_validate(
        {
            "id": campaign.id,
            "name": campaign.name,
            "status": domain.scheduled_status(campaign, ledger.now_ms),
            "version": campaign.version,
            "benefit": benefit_body(campaign.benefit),
            "max_coupons": campaign.max_coupons,
            "max_coupons_per_user": campaign.max_coupons_per_user,
            "max_quota_per_user": campaign.max_quota_per_user,
            **limits_body(campaign),
            "budget": None if budget is None else {"amount": budget.amount, "currency": budget.currency},
            "issue_window": None
            if window is None
            else {"starts_at": _moment(window.starts_at_ms, zone), "ends_at": _moment(window.ends_at_ms, zone)},
            "validity": {**validity_body(campaign.validity), "stop_the_clock": campaign.stop_the_clock},
            "issue_rate": _rate_body(campaign.issue_rate),
            "user_rate": _rate_body(campaign.user_rate),
            "merchant_rate": _rate_body(campaign.merchant_rate),
            "issue_coupling": _coupling_body(campaign.redemptions_per_second_milli),
            "code_prefix": campaign.code_prefix,
            "codes": "computed" if campaign.imported_codes is None else "imported",
            "messages": campaign.messages,
            "counters": Counters(
                issued=counters.issued,
                outstanding=counters.outstanding,
                reserved=counters.reserved,
                redeemed=counters.redeemed,
                expired=counters.expired,
                deactivated=counters.deactivated,
                remaining=ledger.remaining,
                budget_remaining=ledger.budget_remaining,
                liability=ledger.amounts.liability,
            ),
        }
    )


def _check(campaign: domain.Campaign) -> None:
    quota = campaign.max_quota_per_user
    if quota is not None and quota < campaign.max_coupons_per_user:
        raise _refused("max_quota_per_user", "must not be below max_coupons_per_user")
    if campaign.budget is None and campaign.max_coupons * campaign.benefit.worst_case > money.MAX_COMMITTED:
        raise _refused("max_coupons", f"times the benefit must stay below {money.MAX_COMMITTED} without a budget")


def _check_usable(campaign: domain.Campaign) -> None:
    rule = campaign.validity
    if isinstance(rule, FixedValidity):
        from_ms = max(rule.starts_at_ms or 0, campaign.created_at_ms)
        if usable_at(rule, from_ms, rule.expires_at_ms) is None:
            raise _refused("validity", "leaves no time in which a coupon can be redeemed")


def _refused(field: str, message: str) -> Refused:
    return Refused(invalid([{"loc": field.split("."), "msg": message}]))


def _code_prefix(campaign_id: str) -> str:
    letters = campaign_id.replace("-", "").upper()[:CODE_PREFIX_LENGTH]
    return letters if len(letters) > 1 else f"{letters}X"


def _budget(request: CampaignRequest) -> money.Money | None:
    if isinstance(request.benefit, RedEnvelopeBenefit):
        return money.Money(request.benefit.pot, request.benefit.currency)
    return _money(request.budget)


def _money(given: Money | None) -> money.Money | None:
    return None if given is None else money.Money(given.amount, given.currency)


def _window(given: IssueWindow | None) -> domain.IssueWindow | None:
    return None if given is None else domain.IssueWindow(milliseconds(given.starts_at), milliseconds(given.ends_at))


def _thousandths(per_second: float) -> int:
    return round(per_second * 1000)


def _rate(given: Rate | None) -> money.Rate | None:
    return None if given is None else money.Rate(_thousandths(given.per_second), given.burst)


def _coupling(given: IssueCoupling | None) -> int | None:
    return None if given is None else _thousandths(given.redemptions_per_second)


def _moment(instant_ms: int, zone: str) -> datetime:
    return datetime.fromisoformat(moment_text(instant_ms, zone))


def _rate_body(held: money.Rate | None) -> dict[str, Any] | None:
    return None if held is None else {"per_second": held.per_second_milli / 1000, "burst": held.burst}


def _coupling_body(per_second_milli: int | None) -> dict[str, float] | None:
    return None if per_second_milli is None else {"redemptions_per_second": per_second_milli / 1000}
