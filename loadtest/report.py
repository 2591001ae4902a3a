"""Why: whoever was not there reads the rehearsal afterwards: one page, one table for programs, one picture."""

import csv
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from html import escape
from pathlib import Path
from typing import Final

from loadtest.evidence import Evidence, Stand
from loadtest.intervals import Interval, first_requests, quantile
from loadtest.messages import Answer, Verb
from loadtest.picture import draw
from loadtest.plan import Plan
from loadtest.provenance import commit, now, processor
from loadtest.verdict import Check

STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0 2rem; font-size: .9em; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid #8884; }
.figures td, .figures th { text-align: right; font-variant-numeric: tabular-nums; }
.kept { color: #2f8f5b; }
.broken { color: #c8402f; font-weight: 600; }
"""


def write_report(
    stem: Path, plan: Plan, checks: Sequence[Check], intervals: Sequence[Interval], evidence: Evidence
) -> tuple[Path, ...]:
    """Write `stem`.html, .csv and .svg, and return their paths. Raises OSError."""
    page, table, picture = (stem.with_name(f"{stem.name}.{kind}") for kind in ("html", "csv", "svg"))
    drawn = draw(plan, intervals)
    picture.write_text(drawn)
    page.write_text(_page(facts(plan, evidence), checks, intervals, drawn))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Interval)])
        writer.writeheader()
        writer.writerows(asdict(interval) for interval in intervals)
    return page, table, picture


def facts(plan: Plan, evidence: Evidence) -> dict[str, str]:
    """What was played where, how fast the answers came, and when issuance was paused and why."""
    answers = evidence.answers
    return {
        "Played": f"{plan.hours:g} hours in {plan.into_s:g} s, {plan.orders:,} orders, {plan.merchants:,} merchants, "
        f"seed {plan.seed}",
        **{f"Time to {verb.value}": _times(answers, verb) for verb in (Verb.ISSUE, Verb.LOOK, Verb.REDEEM)},
        "Issuance": "; ".join(map(_told, evidence.issuance)),
        "Customers set out": f"{_lateness(answers)} ms late at p99, the generator's own doing",
        "Machine": f"{processor()}, {platform.system()}, Python {platform.python_version()}",
        "Commit": commit(),
        "When": now(),
    }


def _times(answers: Sequence[Answer], verb: Verb) -> str:
    took_ms = sorted((a.answered_s - a.started_s) * 1000 for a in answers if a.verb is verb and a.granted)
    return f"p50 {quantile(took_ms, 0.5)} ms, p99 {quantile(took_ms, 0.99)} ms over {len(took_ms):,} granted"


def _told(stand: Stand) -> str:
    return f"{stand.at_s:.0f} s {stand.issuance}{f' ({stand.reason})' if stand.reason else ''}"


def _lateness(answers: Sequence[Answer]) -> float:
    return quantile(sorted((answer.started_s - answer.due_s) * 1000 for answer in first_requests(answers)), 0.99)


def _page(said: Mapping[str, str], checks: Sequence[Check], intervals: Sequence[Interval], picture: str) -> str:
    kept = all(check.kept for check in checks)
    names = [field.name for field in fields(Interval)]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Tidegate: rehearsal</title><style>{STYLE}</style></head><body>
<h1>Rehearsal: {"every promise kept" if kept else "a promise was broken"}</h1>
{picture}
<table>{"".join(_row(name, value) for name, value in said.items())}</table>
<h2>Verdict</h2>
<table>{"".join(_verdict_row(check) for check in checks)}</table>
<h2>Interval by interval</h2>
<table class="figures"><tr>{"".join(f"<th>{name.replace('_', ' ')}</th>" for name in names)}</tr>
{"".join(_row(*asdict(interval).values()) for interval in intervals)}</table>
</body></html>
"""


def _row(*cells: object) -> str:
    return f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>\n"


def _verdict_row(check: Check) -> str:
    mark = '<td class="kept">kept</td>' if check.kept else '<td class="broken">broken</td>'
    return f"<tr>{mark}<td>{escape(check.promise)}</td><td>{escape(check.seen)}</td></tr>\n"
