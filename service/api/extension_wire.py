"""The wire models of extensions and outages: what makes coupons valid for longer, and what became of it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from service.api.vocabulary import Currency, Moment, OpaqueId, Text, Wire
from service.domain.extension import MAX_SCOPE_USERS


class ExtensionScope(Wire):
    """Whom an extension concerns: all that is given must be so. `issued_to` and `expiring_before` are exclusive."""

    issued_from: Moment | None = None
    issued_to: Moment | None = None
    expiring_before: Moment | None = None
    user_ids: Annotated[list[OpaqueId], Field(min_length=1, max_length=MAX_SCOPE_USERS)] | None = None
    merchant_id: OpaqueId | None = Field(None, description="Where the coupon was last reserved or redeemed.")

    @model_validator(mode="after")
    def _narrows_down(self) -> Self:
        if not self.model_fields_set or all(getattr(self, name) is None for name in self.model_fields_set):
            raise ValueError("say whom it concerns, or leave scope out for every coupon")
        if self.issued_from is not None and self.issued_to is not None and self.issued_to <= self.issued_from:
            raise ValueError("issued_to must be later than issued_from")
        return self


class ExtensionRequest(Wire):
    """Until when the campaign's coupons, or those in `scope`, are to stay valid."""

    expires_at: Moment
    reason: Text
    dry_run: bool = Field(False, description="Only count: many coupons are counted by a job.")
    include_expired: bool = Field(False, description="Bring coupons back that are over, if the budget covers them.")
    scope: ExtensionScope | None = None


class MoneySum(Wire):
    """What coupons come to, in minor units of a currency; 0 where there are none."""

    amount: int
    currency: Currency


class ExtensionUndo(Wire):
    """How an extension was taken back; `done` of `total` coupons have it written, `shortened` expire sooner by it."""

    undone_at: Moment
    reason: str
    actor: str
    total: int
    done: int
    shortened: int


class Extension(Wire):
    """An extension, or what one would do. `done` of `total` coupons have it written in their own record.

    It holds from the start; with a scope, from when a coupon was looked at. It lifts to `expires_at` or, for lost time,
    by `added_ms`. Of the coupons changed, `revived` were over; `refused` ones wait until the budget covers them.
    """

    id: str
    campaign_id: str
    expires_at: Moment | None
    added_ms: int | None
    scope: ExtensionScope | None
    include_expired: bool
    status: Literal["pending", "running", "completed", "failed", "undoing", "undone"]
    total: int
    done: int
    changed: int
    revived: int
    refused: int
    reason: str
    actor: str
    made_at: Moment | None
    undo_until: Moment | None
    undo: ExtensionUndo | None
    liability: MoneySum | None = Field(description="Of a dry run: what the coupons it changes may cost at most.")
    budget_needed: MoneySum | None = Field(description="Of a dry run: what the budget must cover again.")


class OutageRequest(Wire):
    """A time in which redemption was down. Coupons of campaigns that stop the clock are valid for longer by it."""

    from_: Annotated[Moment, Field(alias="from")]
    to: Moment
    reason: Text


class Outage(Wire):
    """An outage as it was recorded."""

    number: int
    from_: Annotated[Moment, Field(alias="from")]
    to: Moment
    reason: str
    actor: str


class OutageList(Wire):
    """The outages in the order in which they were recorded."""

    outages: list[Outage]
