"""Why: the same tables go to whoever waits for them, into the README, and as plain data to whoever doubts them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from loadtest.bench.figures import Figure
from loadtest.bench.samples import Findings, Load

STYLES: Final = {"ok": "green", "missed": "bold red", "not measured": "dim"}


@dataclass(frozen=True, slots=True)
class Sheet:
    """One table; the numbers stand on the right in all columns of `numbers`."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: range


def verdict(figure: Figure) -> str:
    """One word on a figure."""
    if not figure.values and not figure.broken:
        return "not measured"
    return "ok" if figure.is_reached else "missed"


def sheets(findings: Findings, found: Sequence[Figure]) -> list[Sheet]:
    """What has been found: the figures against their bounds, the medians behind them, and the profile."""
    numbers = " · ".join(map(str, findings.connections()))
    told = [
        Sheet(
            "Figures",
            ("figure", f"measured, {numbers} connections" if numbers else "measured", "bound", "", "what limits it"),
            [(figure.name, _values(figure), str(figure.bound), verdict(figure), figure.limited_by) for figure in found],
            range(1, 3),
        )
    ]
    medians = [row for load in Load for row in _medians(findings, load)]
    if medians:
        head = ("load", "connections", "requests/s", "p99 ms", "API µs", "store µs", "wrk µs")
        told.append(Sheet("Medians; CPU time for each request", head, medians, range(1, 7)))
    if findings.profile:
        rows = [(function, f"{share:.1%}") for function, share in findings.profile.items()]
        told.append(Sheet("Where the API's time goes, by py-spy", ("function", "own share"), rows, range(1, 2)))
    return told


def print_sheets(console: Console, told: Sequence[Sheet], facts: Mapping[str, str]) -> None:
    """Show everything to a person."""
    for sheet in told:
        table = Table(title=sheet.title, title_justify="left", box=None, padding=(0, 2, 0, 0))
        for index, name in enumerate(sheet.head):
            table.add_column(name, justify="right" if index in sheet.numbers else "left")
        for row in sheet.rows:
            table.add_row(*(f"[{STYLES[cell]}]{cell}[/]" if cell in STYLES else cell for cell in row))
        console.print(table)
    for name, fact in facts.items():
        console.print(f"[dim]{name}:[/dim] {fact}", highlight=False)


def markdown(told: Sequence[Sheet], facts: Mapping[str, str]) -> str:
    """The same as a page of Markdown."""
    parts = []
    for sheet in told:
        rule = ("--:" if index in sheet.numbers else "---" for index in range(len(sheet.head)))
        lines = [_line(sheet.head), _line(rule), *map(_line, sheet.rows)]
        parts.append(f"### {sheet.title}\n\n" + "\n".join(lines) + "\n")
    parts.append("\n".join(f"- {name}: {fact}" for name, fact in facts.items()) + "\n")
    return "\n".join(parts)


def write(path: Path, findings: Findings, found: Sequence[Figure], facts: Mapping[str, str]) -> tuple[Path, Path]:
    """Write everything as JSON to `path`, and the tables as Markdown beside it. Raises OSError."""
    page = path.with_suffix(".md")
    document: dict[str, Any] = {
        "machine": facts,
        "figures": [
            {
                "figure": figure.name,
                "bound": str(figure.bound),
                "values": figure.values,
                "verdict": verdict(figure),
                "limited_by": figure.limited_by,
            }
            for figure in found
        ],
        "findings": asdict(findings),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    page.write_text(markdown(sheets(findings, found), facts))
    return path, page


def _values(figure: Figure) -> str:
    if not figure.values:
        return "-"
    return f"{' · '.join(f'{value:.3g}' for value in figure.values.values())} {figure.bound.unit}".rstrip()


def _medians(findings: Findings, load: Load) -> list[tuple[str, ...]]:
    rows = []
    for number in findings.connections():
        values = [
            findings.middle(load, number, lambda sample: sample.per_second),
            findings.middle(load, number, lambda sample: sample.p99_ms),
            findings.middle(load, number, lambda sample: sample.service_us),
            findings.middle(load, number, lambda sample: sample.store_us),
            findings.middle(load, number, lambda sample: sample.people_cpu_s / sample.requests * 1e6),
        ]
        texts = ["{:,.0f}", "{:.1f}", "{:.1f}", "{:.1f}", "{:.1f}"]
        cells = [text.format(value) for text, value in zip(texts, values, strict=True) if value is not None]
        if cells:
            rows.append((load.value, str(number), *cells))
    return rows


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"
