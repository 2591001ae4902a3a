"""Why: the rehearsal replays a day that really happened, so its facts stand in one place, apart from how they are used.

The source is the press of February 2026 on the Spring Festival free-order campaign of the Qwen app. What was published
are five points of a cumulative curve; between them nothing is known. They are joined by a monotone cubic (Fritsch and
Carlson): it meets every point exactly, never falls, and its rate has no jumps that nobody reported.
"""

from bisect import bisect_right
from datetime import datetime, time, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

ZONE: Final = ZoneInfo("Asia/Shanghai")
LAUNCH: Final = datetime(2026, 2, 6, 7, 46, tzinfo=ZONE)
"""The announcement of ten million orders, at 16:46, minus its nine hours."""
ORDERS_BY_HOUR: Final = ((0.0, 0), (3.0, 1_000_000), (4.0, 2_000_000), (5.0, 5_000_000), (9.0, 10_000_000))
LAST_HOUR: Final = ORDERS_BY_HOUR[-1][0]
ALL_ORDERS: Final = ORDERS_BY_HOUR[-1][1]

BUDGET_FEN: Final = 300_000_000_000
COUPON_FEN: Final = 2_500
CURRENCY: Final = "CNY"
MAX_COUPONS_PER_USER: Final = 21
MERCHANTS: Final = 300_000

PAGES_FAIL: Final = datetime(2026, 2, 6, 10, tzinfo=ZONE)
WORST_IS_OVER: Final = datetime(2026, 2, 6, 12, tzinfo=ZONE)
FIRST_LAST_DAY: Final = datetime(2026, 2, 23, tzinfo=ZONE)
EXTENDED_LAST_DAY: Final = datetime(2026, 2, 28, tzinfo=ZONE)


def hours_after_launch(moment: datetime) -> float:
    """When `moment` was, in hours after the launch."""
    return (moment - LAUNCH) / timedelta(hours=1)


def last_valid_second(last_day: datetime, launch: datetime) -> datetime:
    """The end of `last_day`, moved with the whole calendar so that the campaign's launch is `launch`."""
    days = (last_day.date() - LAUNCH.date()).days
    return datetime.combine(launch.astimezone(ZONE).date() + timedelta(days=days), time(23, 59, 59), ZONE)


def orders_by(hours: float) -> float:
    """Orders since the launch, `hours` after it. Raises ValueError outside of what was published."""
    if not 0 <= hours <= LAST_HOUR:
        raise ValueError(f"nothing was published for {hours:g} hours after the launch")
    index = min(bisect_right(_HOURS, hours), len(_HOURS) - 1) - 1
    width = _HOURS[index + 1] - _HOURS[index]
    x = (hours - _HOURS[index]) / width
    rise = x * x * (3 - 2 * x)
    from_left, from_right = x * (1 - x) ** 2, x * x * (x - 1)
    return (
        _ORDERS[index] * (1 - rise)
        + _ORDERS[index + 1] * rise
        + width * (from_left * _TANGENTS[index] + from_right * _TANGENTS[index + 1])
    )


def _tangents() -> tuple[float, ...]:
    """The slope at each point: a weighted harmonic mean of its neighbours' slopes, which keeps the curve monotone."""
    widths = [right - left for left, right in pairwise(_HOURS)]
    slopes = [(right - left) / width for (left, right), width in zip(pairwise(_ORDERS), widths, strict=True)]
    inner = [
        3 * (before + after) / ((before + 2 * after) / slope_before + (2 * before + after) / slope_after)
        for (before, after), (slope_before, slope_after) in zip(pairwise(widths), pairwise(slopes), strict=True)
    ]
    return (slopes[0], *inner, slopes[-1])


_HOURS: Final = tuple(hours for hours, _ in ORDERS_BY_HOUR)
_ORDERS: Final = tuple(orders for _, orders in ORDERS_BY_HOUR)
_TANGENTS: Final = _tangents()
