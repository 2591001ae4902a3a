"""Why: every promise of speed is one number with one bound; here the runs become numbers, and nothing else happens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from statistics import median
from typing import Final

from loadtest.bench.samples import REFUSALS, Findings, Group, Load, Sample

TIMES: Final = "\N{MULTIPLICATION SIGN}"
ONE_SCRIPT: Final = (Load.PLAIN_FASTAPI, Load.NGINX)
FULL: Final = 0.95
"""Of a core: with more than this it is what limits."""
OWN_CALLS_A_SECOND: Final = 60
"""What an API process asks the store when nobody comes: the breaker's pulses and signals, all of their commands."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure must reach, or must not exceed."""

    limit: float
    unit: str
    is_least: bool = False

    def holds(self, value: float) -> bool:
        """Whether a value keeps it."""
        return value >= self.limit if self.is_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.is_least else '≤'} {self.limit:.3g} {self.unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, by numbers of connections where they matter, with its bound and what limits it now.

    Without values it could not be measured, and `limited_by` says why; `broken` says which promise it has cost.
    """

    name: str
    bound: Bound
    values: Mapping[str, float]
    limited_by: str
    broken: str = ""

    @property
    def is_reached(self) -> bool:
        """Whether no promise was broken, and every value keeps the bound."""
        return not self.broken and all(map(self.bound.holds, self.values.values()))


def figures(findings: Findings, groups: Sequence[Group]) -> list[Figure]:
    """The figures of some groups, in the order of the promise."""
    of_group: Mapping[Group, Callable[[Findings], list[Figure]]] = {
        Group.ISSUE: _issue,
        Group.REDEEM: _redeem,
        Group.STORE: _store,
        Group.MEMORY: _memory,
        Group.LATENCY: _latency,
        Group.REFUSALS: _refusals,
        Group.PAUSED: _paused,
        Group.IDLE: _idle,
    }
    return [figure for group, make in of_group.items() if group in groups for figure in make(findings)]


def _issue(findings: Findings) -> list[Figure]:
    return [
        _ratio(findings, "Issue / FastAPI and redis-py", Bound(8, TIMES, True), Load.PLAIN_FASTAPI),
        _ratio(findings, "Issue / nginx and Lua", Bound(1.5, TIMES, True), Load.NGINX),
        _ratio(findings, "Issue / bare ASGI", Bound(0.6, TIMES, True), Load.BARE),
    ]


def _ratio(findings: Findings, name: str, bound: Bound, to: Load) -> Figure:
    values = _by_connections(findings, lambda number: findings.ratio(Load.ISSUE, to, number, _per_second))
    limits = f"{limited_by(findings, Load.ISSUE)} · the other {limited_by(findings, to)}"
    return Figure(name, bound, values, findings.missing.get(to) or limits)


def _redeem(findings: Findings) -> list[Figure]:
    values = _by_connections(findings, lambda number: findings.ratio(Load.REDEEM, Load.ISSUE, number, _per_second))
    return [Figure("Redeem / issue", Bound(0.8, TIMES, True), values, limited_by(findings, Load.REDEEM))]


def _store(findings: Findings) -> list[Figure]:
    return [
        Figure(
            "Store CPU of a coupon",
            Bound(12, "µs"),
            _by_connections(findings, lambda number: findings.middle(Load.ISSUE, number, _store_us)),
            limited_by(findings, Load.ISSUE),
        ),
        Figure(
            "Store CPU of a coupon / one script a request",
            Bound(1 / 3, TIMES),
            _by_connections(findings, partial(_store_share, findings)),
            f"the other {limited_by(findings, Load.NGINX)}",
        ),
    ]


def _store_share(findings: Findings, number: int) -> float | None:
    """Against whichever baseline's script costs less: nginx asks so fast that its fsyncs and wake-ups are shared."""
    ratios = [findings.ratio(Load.ISSUE, to, number, _store_us) for to in ONE_SCRIPT]
    return max((ratio for ratio in ratios if ratio is not None), default=None)


def _memory(findings: Findings) -> list[Figure]:
    growth = findings.growth
    if growth is None:
        return []
    ratio = median(late_us / early_us for early_us, late_us in zip(growth.early_us, growth.late_us, strict=True))
    return [
        Figure(
            f"Store memory of a coupon, {growth.coupons:,} coupons",
            Bound(72, "bytes"),
            {"": growth.bytes_per_coupon},
            f"1 a user, batches of {growth.batch}; {growth.resident_bytes_per_coupon:.1f} bytes resident",
        ),
        Figure(
            f"Store CPU of a coupon at {growth.coupons:,} / at {growth.early_coupons:,}",
            Bound(1.15, TIMES),
            {"": ratio},
            f"{median(growth.late_us):.1f} against {median(growth.early_us):.1f} µs",
        ),
    ]


def _latency(findings: Findings) -> list[Figure]:
    values, told = {}, []
    for number in sorted({paced.connections for paced in findings.paced}):
        runs = [paced for paced in findings.paced if paced.connections == number]
        values[str(number)] = median(run.p99_ms for run in runs)
        middle_ms, late_ms = median(run.p50_ms for run in runs), median(run.late_p99_ms for run in runs)
        told.append(f"{runs[0].per_second:,.0f}/s: p50 {middle_ms:.1f} ms, people themselves late by {late_ms:.1f} ms")
    limit = f"open loop: {', '.join(told)}" if told else limited_by(findings, Load.ISSUE)
    return [Figure("p99 at half of the peak", Bound(10, "ms"), values, limit)]


def _refusals(findings: Findings) -> list[Figure]:
    return [
        Figure(
            f"Cost: {load} / issue",
            Bound(1, TIMES),
            _by_connections(findings, partial(_dearness, findings, load)),
            limited_by(findings, load),
        )
        for load in REFUSALS
    ]


def _dearness(findings: Findings, load: Load, number: int) -> float | None:
    time = findings.ratio(Load.ISSUE, load, number, _per_second)
    cpu = findings.ratio(load, Load.ISSUE, number, _cpu_us)
    return None if time is None or cpu is None else max(time, cpu)


def _paused(findings: Findings) -> list[Figure]:
    paused = [sample for sample in findings.samples if sample.load is Load.PAUSED]
    calls = max((sample.store_calls for sample in paused), default=0)
    return [
        Figure(
            "CPU, API and store: paused / issue",
            Bound(0.5, TIMES),
            _by_connections(findings, lambda number: findings.ratio(Load.PAUSED, Load.ISSUE, number, _cpu_us)),
            limited_by(findings, Load.PAUSED),
        ),
        Figure(
            "Store calls: paused",
            Bound(0, ""),
            _by_connections(findings, lambda number: _calls_for_others(paused, number)),
            f"{calls} calls at most in a run, the breaker's own",
        ),
    ]


def _calls_for_others(paused: Sequence[Sample], number: int) -> float | None:
    beyond = [
        max(0, sample.store_calls - ceil((sample.seconds + 1) * OWN_CALLS_A_SECOND))
        for sample in paused
        if sample.connections == number
    ]
    return max(beyond, default=None)


def _idle(findings: Findings) -> list[Figure]:
    if not findings.idle:
        return []
    gate, bare = (
        median(values)
        for values in zip(*((idle.group_commit_us, idle.evalsha_us) for idle in findings.idle), strict=True)
    )
    ratio = median(idle.group_commit_us / idle.evalsha_us for idle in findings.idle)
    told = f"the disk: p50 {gate:.0f} against {bare:.0f} µs"
    return [Figure("Issue when idle / one EVALSHA", Bound(1.5, TIMES), {"": ratio}, told)]


def limited_by(findings: Findings, load: Load) -> str:
    """Which core was full at most connections, and who used it: the service's core, then that of store and wrk."""
    numbers = findings.connections()
    shares = [
        findings.middle(load, numbers[-1], share) if numbers else None
        for share in (
            lambda sample: sample.service_cpu_s / sample.seconds,
            lambda sample: sample.store_cpu_s / sample.seconds,
            lambda sample: sample.people_cpu_s / sample.seconds,
        )
    ]
    if None in shares:
        return findings.missing.get(load, "not measured")
    service, store, generator = (share or 0.0 for share in shares)
    full = "the API" if service >= FULL else "store and wrk" if store + generator >= FULL else "no core"
    return f"{full}: API {service:.0%}; store {store:.0%}, wrk {generator:.0%}"


def _by_connections(findings: Findings, value: Callable[[int], float | None]) -> dict[str, float]:
    found = {str(number): value(number) for number in findings.connections()}
    return {number: value for number, value in found.items() if value is not None}


def _per_second(sample: Sample) -> float:
    return sample.per_second


def _cpu_us(sample: Sample) -> float:
    return sample.cpu_us


def _store_us(sample: Sample) -> float:
    return sample.store_us
