"""Benefits on the wire, one model a kind, and between the wire's words and the domain's values."""

from typing import Annotated, Any, Literal, Self, assert_never

from pydantic import Field, model_validator

from service.api.vocabulary import Amount, Currency, Wire
from service.domain import benefit as domain
from service.domain.campaign import MAX_COUPONS
from service.domain.money import MAX_AMOUNT

LeastOrder = Annotated[int, Field(ge=0, le=MAX_AMOUNT)]


class AmountBenefit(Wire):
    """An amount off, for orders from `min_order_amount` on."""

    kind: Literal["amount"]
    amount: Amount
    currency: Currency
    min_order_amount: LeastOrder = 0


class PercentBenefit(Wire):
    """A percentage of the order off, rounded down and `max_amount` at most."""

    kind: Literal["percent"]
    percent: Annotated[int, Field(ge=1, le=100)]
    max_amount: Amount
    currency: Currency
    min_order_amount: LeastOrder = 0


class RedEnvelopeBenefit(Wire):
    """A pot that is drawn in random shares; they sum to it exactly when all are issued."""

    kind: Literal["red_envelope"]
    pot: Amount
    shares: Annotated[int, Field(ge=1, le=MAX_COUPONS)]
    min_share: Amount = 1
    currency: Currency
    min_order_amount: LeastOrder = 0

    @model_validator(mode="after")
    def _has_enough_for_everybody(self) -> Self:
        if self.pot < self.shares * self.min_share:
            raise ValueError("pot must be at least shares times min_share")
        return self


class DrawnBenefit(Wire):
    """What the holder of a red envelope's coupon has drawn: an amount off."""

    kind: Literal["red_envelope"]
    amount: Amount
    currency: Currency
    min_order_amount: LeastOrder = 0


Benefit = Annotated[AmountBenefit | PercentBenefit | RedEnvelopeBenefit, Field(discriminator="kind")]
CouponBenefit = Annotated[AmountBenefit | PercentBenefit | DrawnBenefit, Field(discriminator="kind")]


def benefit_value(given: AmountBenefit | PercentBenefit | RedEnvelopeBenefit) -> domain.Benefit:
    """The benefit that a request describes."""
    match given:
        case AmountBenefit():
            return domain.Amount(given.amount, given.currency, given.min_order_amount)
        case PercentBenefit():
            return domain.Percent(given.percent, given.max_amount, given.currency, given.min_order_amount)
        case RedEnvelopeBenefit():
            pot, shares, least = given.pot, given.shares, given.min_share
            return domain.RedEnvelope(pot, shares, least, given.currency, given.min_order_amount)
        case _:
            assert_never(given)


def benefit_body(held: domain.Benefit) -> dict[str, Any]:
    """The benefit as a campaign shows it."""
    common = {"currency": held.currency, "min_order_amount": held.min_order_amount}
    match held:
        case domain.Amount(amount):
            return {"kind": "amount", "amount": amount, **common}
        case domain.Percent(percent, max_amount):
            return {"kind": "percent", "percent": percent, "max_amount": max_amount, **common}
        case domain.RedEnvelope(pot, shares, min_share):
            return {"kind": "red_envelope", "pot": pot, "shares": shares, "min_share": min_share, **common}
        case _:
            assert_never(held)


def coupon_benefit_body(held: domain.Benefit, drawn_amount: int | None) -> dict[str, Any]:
    """The benefit as a coupon shows it: what its holder has, never the pot."""
    if drawn_amount is None:
        return benefit_body(held)
    common = {"currency": held.currency, "min_order_amount": held.min_order_amount}
    return {"kind": "red_envelope", "amount": drawn_amount, **common}
