"""Why: who orders what and when is decided before the rehearsal begins, so that it can be repeated from its seed.

Two moments are the rehearsal's own. The pause stands where the pages failed in 2026, from 10:00 until about noon: that
is when Tidegate would have paused. The extension was announced in the night after the last published point; it is
brought forward to one hour before the end, so that it meets the full load with most coupons already out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, pairwise
from math import ceil
from random import Random
from typing import Any, Final

from loadtest import incident

STEPS_PER_HOUR: Final = 60
REPEATING_SHARE: Final = 0.1
"""Orders whose customer sends the same request twice, and redemptions tried a second time."""
LOOKING_SHARE: Final = 0.2
REDEEMING_SHARE: Final = 0.5
REDEEMED_WITHIN_HOURS: Final = 4.0
COLLECTING_SHARE: Final = 0.02
"""Orders of a few customers who want more coupons than one may have."""
ORDERS_PER_COLLECTOR: Final = 40
ORDERS_PER_CUSTOMER: Final = 2
MIN_MERCHANTS: Final = 10
MERCHANT_RESERVE: Final = 1.25
ISSUE_RATE: Final = {"per_second": 20_000, "burst": 40_000}


@dataclass(frozen=True, slots=True)
class Order:
    """One customer's visit. Times are seconds after the beginning; `redeem_s` is None for a coupon that is kept."""

    number: int
    due_s: float
    user_id: str
    merchant_id: str
    sends_twice: bool
    looks: bool
    redeem_s: float | None
    redeems_twice: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """The incident's first `hours`, played in `into_s` seconds with `orders` orders at `merchants` merchants."""

    hours: float
    into_s: float
    orders: int
    merchants: int
    seed: int

    @property
    def pause_s(self) -> tuple[float, float]:
        """When issuance is paused and resumed."""
        begin, end = (incident.hours_after_launch(at) for at in (incident.PAGES_FAIL, incident.WORST_IS_OVER))
        return self.seconds(begin), self.seconds(end)

    @property
    def extension_s(self) -> float:
        """When the validity is extended."""
        return self.seconds(self.hours - 1)

    @property
    def volume(self) -> float:
        """The share of the incident's orders that is played."""
        return self.orders / incident.orders_by(self.hours)

    def seconds(self, hours: float) -> float:
        """How long after the beginning the incident's hour is played."""
        return hours / self.hours * self.into_s

    def hour(self, seconds: float) -> float:
        """The incident's hour that is played `seconds` after the beginning; the last one from the end on."""
        return min(max(0.0, seconds / self.into_s * self.hours), self.hours)

    def orders_by(self, seconds: float) -> int:
        """Orders that the curve demands until then: none at first, `orders` in the end."""
        return round(incident.orders_by(self.hour(seconds)) * self.volume)

    def max_coupons(self) -> int:
        """As many coupons for each order as the incident's budget could pay."""
        return int(incident.BUDGET_FEN // incident.COUPON_FEN * self.volume)

    def campaign(self, campaign_id: str, code_prefix: str, launch: datetime) -> dict[str, Any]:
        """The incident's campaign in the plan's volume, with the calendar moved to `launch`."""
        return {
            "id": campaign_id,
            "name": "Rehearsal of the Spring Festival campaign of 2026",
            "benefit": {"kind": "amount", "amount": incident.COUPON_FEN, "currency": incident.CURRENCY},
            "max_coupons": self.max_coupons(),
            "max_coupons_per_user": incident.MAX_COUPONS_PER_USER,
            "budget": {"amount": self.max_coupons() * incident.COUPON_FEN, "currency": incident.CURRENCY},
            "validity": {
                "expires_at": incident.last_valid_second(incident.FIRST_LAST_DAY, launch).isoformat(),
                "timezone": incident.ZONE.key,
            },
            "issue_rate": ISSUE_RATE,
            "merchant_rate": self._merchant_rate(),
            "code_prefix": code_prefix,
        }

    def make_orders(self) -> list[Order]:
        """All orders, in the order in which they fall due; the same ones for the same plan."""
        random = Random(self.seed)
        merchants = random.choices(range(self.merchants), cum_weights=self._popularity(), k=self.orders)
        return [
            self._order(number, due_s, merchants[number], random) for number, due_s in enumerate(self._times(random))
        ]

    def _times(self, random: Random) -> list[float]:
        """Between two steps of the curve customers come at random, as many as the curve rises."""
        steps = ceil(self.hours * STEPS_PER_HOUR)
        edges = [self.into_s * step / steps for step in range(steps + 1)]
        return sorted(
            random.uniform(begin, end)
            for begin, end in pairwise(edges)
            for _ in range(self.orders_by(end) - self.orders_by(begin))
        )

    def _order(self, number: int, due_s: float, merchant: int, random: Random) -> Order:
        if random.random() < COLLECTING_SHARE:
            collectors = ceil(self.orders * COLLECTING_SHARE / ORDERS_PER_COLLECTOR)
            user_id = f"collector-{random.randrange(collectors)}"
        else:
            user_id = f"customer-{random.randrange(ceil(self.orders / ORDERS_PER_CUSTOMER))}"
        redeem_s = due_s + self.seconds(random.uniform(0, REDEEMED_WITHIN_HOURS))
        redeems = random.random() < REDEEMING_SHARE and redeem_s < self.into_s
        return Order(
            number=number,
            due_s=due_s,
            user_id=user_id,
            merchant_id=f"merchant-{merchant}",
            sends_twice=random.random() < REPEATING_SHARE,
            looks=random.random() < LOOKING_SHARE,
            redeem_s=redeem_s if redeems else None,
            redeems_twice=random.random() < REPEATING_SHARE,
        )

    def _popularity(self) -> list[float]:
        """Zipf's law: the second merchant has half the customers of the first, the third a third, summed up."""
        return list(accumulate(1 / (rank + 1) for rank in range(self.merchants)))

    def _merchant_rate(self) -> Mapping[str, float]:
        """A little more than what the most popular merchant sells on average, so that its rush meets its limit."""
        share = 1 / self._popularity()[-1]
        per_second = self.orders / self.into_s * REDEEMING_SHARE * share * MERCHANT_RESERVE
        return {"per_second": max(0.5, round(per_second, 3)), "burst": max(5, ceil(per_second * 2))}


def merchants_for(orders: int) -> int:
    """As many merchants for each order as in the incident."""
    return max(MIN_MERCHANTS, round(incident.MERCHANTS * orders / incident.ALL_ORDERS))
