"""Why: the rules of benefits and of limits as the model applies them, each said as plainly as the calendar says it."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from service.domain.benefit import Amount, Benefit, Percent, RedEnvelope


def discount(benefit: Benefit, drawn_amount: int | None, order_amount: int | None) -> int:
    """What comes off an order; a percentage needs the order's amount."""
    match benefit:
        case Amount(amount):
            return amount if order_amount is None else min(amount, order_amount)
        case Percent(percent, max_amount):
            assert order_amount is not None
            return min(max_amount, order_amount * percent // 100)
        case RedEnvelope():
            assert drawn_amount is not None
            return drawn_amount if order_amount is None else min(drawn_amount, order_amount)


def worth(benefit: Benefit, drawn_amount: int | None) -> int:
    """What a coupon can cost at most."""
    return benefit.worst_case if drawn_amount is None else drawn_amount


def may_be_drawn(benefit: RedEnvelope, left: int, shares: int, drawn_amount: int) -> bool:
    """Whether that share leaves enough for the others, and all that is left to the last."""
    if shares == 1:
        return drawn_amount == left
    spare = left - shares * benefit.min_share
    return 0 <= drawn_amount - benefit.min_share <= -(-2 * spare // shares)


def day_of(instant_ms: int, timezone: str) -> date:
    """The date that calendars in the zone show."""
    return datetime.fromtimestamp(instant_ms / 1000, UTC).astimezone(ZoneInfo(timezone)).date()


def until_tomorrow_ms(now_ms: int, timezone: str) -> int:
    """How long the day lasts there."""
    tomorrow = datetime.combine(day_of(now_ms, timezone) + timedelta(days=1), time(), ZoneInfo(timezone))
    return round(tomorrow.timestamp() * 1000) - now_ms
