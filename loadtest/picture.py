"""Why: one picture tells the whole rehearsal: what was demanded, what was issued, and that redemption never stopped."""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from math import ceil, floor, log10
from typing import Final

from loadtest import incident
from loadtest.intervals import Interval
from loadtest.plan import Plan

WIDTH: Final = 960
HEIGHT: Final = 440
LEFT, RIGHT, TOP, BOTTOM = 72, 28, 84, 56
MOST_TICKS: Final = 6

STYLE: Final = """
.tide { --paper: #ffffff; --ink: #1f2933; --quiet: #5f6c7b; --rule: #e4e8ee; --sea: #0b6fb8; --land: #2f8f5b;
  --band: #f4b94033; --mark: #b3541e; font: 13px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { .tide { --paper: #0d1117; --ink: #e6edf3; --quiet: #9aa7b4; --rule: #262d36;
  --sea: #58b0f5; --land: #5fc992; --band: #f4b9402b; --mark: #f0995f; } }
.tide .paper { fill: var(--paper); }
.tide text { fill: var(--quiet); }
.tide text.title { fill: var(--ink); font-size: 17px; font-weight: 600; }
.tide text.key { fill: var(--ink); }
.tide text.said { fill: var(--mark); }
.tide .rule { stroke: var(--rule); }
.tide .band { fill: var(--band); }
.tide .mark { stroke: var(--mark); stroke-width: 2; }
.tide .point { fill: var(--paper); stroke: var(--quiet); stroke-width: 2; }
.tide .line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
.tide .issued { stroke: var(--sea); }
.tide .redeemed { stroke: var(--land); }
.tide .demanded { stroke: var(--quiet); stroke-width: 2; stroke-dasharray: 5 4; }
"""


def draw(plan: Plan, intervals: Sequence[Interval]) -> str:
    """Return the rehearsal as one SVG: orders over the incident's hours, readable on light and on dark paper."""
    length_s = intervals[1].from_s
    end_s = len(intervals) * length_s
    series = {name: _running_total(intervals, name) for name in ("demanded", "issued", "redeemed")}
    tick = _tick(plan.orders)
    top = ceil(plan.orders / tick) * tick

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / end_s

    def y(orders: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * orders / top

    original = f"{incident.orders_by(plan.hours) / 1e6:.3g} million orders in {plan.hours:g} hours"
    title = f"{original}, replayed as {plan.orders:,} in {plan.into_s:g} s"
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="tide" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            f"<title>{title}</title><style>{STYLE}</style>",
            f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
            f'<text class="title" x="{LEFT}" y="34">{title}</text>',
            *_key(),
            *_pause(plan, x),
            *_grid(plan, tick, top, x, y),
            *(_line(name, totals, length_s, x, y) for name, totals in series.items()),
            *_published_points(plan, x, y),
            *_extension(plan, x),
            "</svg>\n",
        )
    )


Scale = Callable[[float], float]


def _key() -> Iterable[str]:
    said = {"demanded": "demanded (circles: as published)", "issued": "issued", "redeemed": "redeemed"}
    left = LEFT
    for name, words in said.items():
        yield f'<path class="line {name}" d="M{left} 56h26"/><text class="key" x="{left + 34}" y="60">{words}</text>'
        left += 62 + 7 * len(words)


def _pause(plan: Plan, x: Scale) -> Iterable[str]:
    begin, end = (x(at) for at in plan.pause_s)
    yield f'<rect class="band" x="{begin:.1f}" y="{TOP}" width="{end - begin:.1f}" height="{HEIGHT - TOP - BOTTOM}"/>'
    yield from _said((begin + end) / 2, TOP + 20, "middle", "issuance paused,", "redemption open")


def _extension(plan: Plan, x: Scale) -> Iterable[str]:
    at = x(plan.extension_s)
    yield f'<path class="mark" d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}"/>'
    yield from _said(
        at - 8, TOP + 0.55 * (HEIGHT - TOP - BOTTOM), "end", "validity of every coupon", "extended to 28 February"
    )


def _said(left: float, top: float, anchor: str, *lines: str) -> Iterable[str]:
    for row, words in enumerate(lines):
        yield f'<text class="said" x="{left:.1f}" y="{top + 17 * row}" text-anchor="{anchor}">{words}</text>'


def _grid(plan: Plan, tick: int, top: int, x: Scale, y: Scale) -> Iterable[str]:
    for orders in range(0, top + 1, tick):
        yield f'<path class="rule" d="M{LEFT} {y(orders):.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text x="{LEFT - 10}" y="{y(orders) + 4:.1f}" text-anchor="end">{orders:,}</text>'
    for hour in range(floor(plan.hours) + 1):
        yield f'<text x="{x(plan.seconds(hour)):.1f}" y="{HEIGHT - BOTTOM + 22}" text-anchor="middle">{hour} h</text>'
    yield f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 12}" text-anchor="end">hours after the launch</text>'


def _line(name: str, totals: Sequence[int], length_s: float, x: Scale, y: Scale) -> str:
    points = " ".join(f"{x(i * length_s):.1f},{y(total):.1f}" for i, total in enumerate(totals))
    return f'<polyline class="line {name}" points="{points}"/>'


def _published_points(plan: Plan, x: Scale, y: Scale) -> Iterable[str]:
    for hour, orders in incident.ORDERS_BY_HOUR:
        if hour <= plan.hours:
            yield f'<circle class="point" cx="{x(plan.seconds(hour)):.1f}" cy="{y(orders * plan.volume):.1f}" r="4"/>'


def _running_total(intervals: Sequence[Interval], name: str) -> list[int]:
    return list(accumulate((getattr(interval, name) for interval in intervals), initial=0))


def _tick(orders: int) -> int:
    least = orders / MOST_TICKS
    power = int(10 ** floor(log10(least)))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= least)
