"""Why: what extensions promise, said as plainly as possible: a coupon's expiry is told from its whole history.

Nothing is cached here: every question about a coupon replays what was made and undone since its issue, in order.
"""

from dataclasses import dataclass, field

from service.domain.campaign import Campaign
from service.domain.coupon import CouponStatus
from service.domain.extension import Outage, Scope, Terms
from service.domain.outcomes import Issued, IssueOutcome, RedeemOutcome
from service.domain.validity import FixedValidity
from tests.store.model import LIVE, Held, Model


@dataclass
class Made:
    """An extension, when it was made and undone, and how far its chunks have come."""

    terms: Terms | Outage
    at_ms: int
    step: int
    issued: int
    undone_at_ms: int | None = None
    undone_step: int | None = None
    undone_issued: int = 0
    done: int = 0
    undo_done: int = 0
    concerned: set[int] = field(default_factory=set)
    changed: int = 0
    revived: int = 0
    refused: int = 0

    @property
    def is_settled(self) -> bool:
        """Whether it and its undoing are written into every coupon."""
        return self.done == self.issued and self.is_undo_written

    @property
    def is_undo_written(self) -> bool:
        """Whether every coupon has its undoing written, if there is one."""
        return self.undo_done == self.undone_issued

    @property
    def is_scoped(self) -> bool:
        """Whether it holds only for those whom its chunks have found."""
        return isinstance(self.terms, Outage) or self.terms.scope is not None

    @property
    def concerns_expired(self) -> bool:
        """Whether it lifts what was over as well, without a scope."""
        return not self.is_scoped and isinstance(self.terms, Terms) and self.terms.include_expired

    def lifted(self, expires_at_ms: int) -> int:
        """The expiry that it makes of one."""
        if isinstance(self.terms, Outage):
            return expires_at_ms + self.terms.length_ms
        return max(expires_at_ms, self.terms.until_ms)


class ExtensionModel(Model):
    """A campaign whose extensions are scoped, undone and bring coupons back."""

    def __init__(self, campaign: Campaign, now_ms: int, shard: int = 0) -> None:
        super().__init__(campaign, now_ms, shard)
        self.made: list[Made] = []
        self.steps = 0
        self.uses: dict[int, list[int]] = {}
        self.before: dict[int, int] = {}
        self.seen: dict[int, int] = {}

    def issue(self, user: str, key: str, drawn_amount: int | None = None) -> IssueOutcome:
        """As ever; the coupon has seen all extensions there are."""
        outcome = super().issue(user, key, drawn_amount)
        if isinstance(outcome, Issued):
            self.before[outcome.sequence] = self.seen[outcome.sequence] = len(self.made)
        return outcome

    def redeem(self, sequence: int, merchant: str, order: str, amount: int | None, hold_ms: int) -> RedeemOutcome:
        """As ever; every use is remembered."""
        attempts = self.coupons[sequence].attempts if sequence < len(self.coupons) else 0
        outcome = super().redeem(sequence, merchant, order, amount, hold_ms)
        if sequence < len(self.coupons) and self.coupons[sequence].attempts > attempts:
            self.uses.setdefault(sequence, []).append(self.now_ms)
        return outcome

    def expires_at(self, held: Held) -> int:
        """When the coupon's validity is over by all that holds now."""
        return self._expiry(held, self.steps)

    def status(self, held: Held) -> CouponStatus:
        """As ever; a coupon written as expired that is valid again is back where the budget covers it."""
        if held.written is CouponStatus.EXPIRED and self.expires_at(held) > self.now_ms and self._affords(held):
            return CouponStatus.ISSUED
        return super().status(held)

    def untidy(self) -> list[int]:
        """As ever; but nobody has to write that a coupon can come back."""
        return [n for n in super().untidy() if self.coupons[n].written is not CouponStatus.EXPIRED]

    def extend(self, terms: Terms | Outage) -> None:
        """Make an extension."""
        self.made.append(Made(terms, self.now_ms, self.steps, len(self.coupons)))
        self.steps += 1

    def undo(self, number: int) -> None:
        """Undo an extension, once."""
        made = self.made[number - 1]
        if made.undone_step is None:
            made.undone_at_ms, made.undone_step, made.undone_issued = self.now_ms, self.steps, len(self.coupons)
            self.steps += 1

    def write_through(self, number: int, most: int) -> None:
        """Work one chunk of an extension off, unless an earlier undoing must come first."""
        made = self.made[number - 1]
        if any(
            each.undone_step is not None and each.undone_step < made.step and not each.is_undo_written
            for each in self.made
        ):
            return
        last = min(made.issued, made.done + most)
        for sequence in range(made.done, last):
            for seen in range(self.seen[sequence], number):
                self._reach(self.made[seen], sequence)
            self.seen[sequence] = max(self.seen[sequence], number)
        made.done = last

    def write_undo_through(self, number: int, most: int) -> None:
        """Work one chunk of an undoing off, once all extensions before it are written through."""
        undone = self.made[number - 1]
        earlier = [each for each in self.made if undone.undone_step is not None and each.step < undone.undone_step]
        if undone.undone_step is not None and all(each.done == each.issued for each in earlier):
            undone.undo_done = min(undone.undone_issued, undone.undo_done + most)

    def _reach(self, made: Made, sequence: int) -> None:
        held = self.coupons[sequence]
        before = self._expiry(held, made.step)
        if (made.is_scoped and made.undone_step is not None) or not self._matches(made, held, before):
            return
        if made.is_scoped:
            made.concerned.add(sequence)
        is_over = self._expiry(held, self.steps) <= self.now_ms
        if held.written is CouponStatus.EXPIRED and made.lifted(before) > max(before, self.now_ms) and not is_over:
            if not self._affords(held):
                made.refused += 1
                return
            held.written = CouponStatus.ISSUED
            made.revived += 1
        made.changed += made.lifted(before) > before and held.written in LIVE

    def _matches(self, made: Made, held: Held, before: int) -> bool:
        first, terms = held.first_answer, made.terms
        if isinstance(terms, Outage):
            return before > terms.from_ms and first.starts_at_ms < terms.to_ms
        scope, merchant = terms.scope or Scope(), held.redemption and held.redemption.merchant_id
        return (
            (terms.include_expired or before > made.at_ms)
            and (scope.issued_from_ms is None or first.issued_at_ms >= scope.issued_from_ms)
            and (scope.issued_to_ms is None or first.issued_at_ms < scope.issued_to_ms)
            and (scope.expiring_before_ms is None or before < scope.expiring_before_ms)
            and (scope.user_ids is None or held.user in scope.user_ids)
            and (scope.merchant_id is None or merchant == scope.merchant_id)
        )

    def _expiry(self, held: Held, at_step: int) -> int:
        """What the coupon's expiry was, by what had been made and undone before that step."""
        first = held.first_answer
        expires_at_ms = first.expires_at_ms
        for made in self.made[self.before[first.sequence] :]:
            if made.step >= at_step or (self._is_undone(made, at_step) and not self._was_used(made, first.sequence)):
                continue
            if made.is_scoped:
                holds = first.sequence in made.concerned
            else:
                holds = made.concerns_expired or self._expiry(held, made.step) > made.at_ms
            if holds:
                expires_at_ms = made.lifted(expires_at_ms)
        return expires_at_ms

    def _instant(self, at_step: int) -> int:
        """Where all expire together: when those issued then do, which a first answer told for good."""
        assert isinstance(self.campaign.validity, FixedValidity)
        expires_at_ms = self.campaign.validity.expires_at_ms
        for made in self.made:
            if made.step >= at_step or made.is_scoped or self._is_undone(made, at_step):
                continue
            if made.concerns_expired or self._instant(made.step) > made.at_ms:
                expires_at_ms = made.lifted(expires_at_ms)
        return expires_at_ms

    def _window(self, sequence: int) -> tuple[int, int]:
        starts_at_ms, expires_at_ms = super()._window(sequence)
        if isinstance(self.campaign.validity, FixedValidity):
            expires_at_ms = self._instant(self.steps)
        return starts_at_ms, expires_at_ms

    def _is_undone(self, made: Made, at_step: int) -> bool:
        return made.undone_step is not None and made.undone_step < at_step

    def _was_used(self, made: Made, sequence: int) -> bool:
        if made.is_scoped and sequence not in made.concerned:
            return False
        return any(made.at_ms <= at_ms < (made.undone_at_ms or 0) for at_ms in self.uses.get(sequence, []))

    def _affords(self, held: Held) -> bool:
        budget = self.limits.budget
        return budget is None or self.counters().budget_committed + self._worth(held) <= budget
