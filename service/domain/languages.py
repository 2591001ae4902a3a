"""Why: the public is told in a language of its own why it must wait, by the rules that browsers follow (RFC 4647)."""

from collections.abc import Iterable, Sequence
from typing import Final

MOST_RANGES: Final = 16
"""So many languages are looked at in what a caller sends; a browser names a handful."""


def preferred(accept_language: str, available: Sequence[str]) -> str:
    """The tag out of `available` that suits an `Accept-Language` header best; the first where none does.

    A range also suits what is narrower (`zh` is content with `zh-Hans`), and falls back to what is wider (`zh-TW` to
    `zh`).
    """
    ranges = [_weighed(item) for item in accept_language.split(",", MOST_RANGES)[:MOST_RANGES]]
    refused = [tag for tag, weight in ranges if weight <= 0]
    for wanted, _ in sorted((item for item in ranges if item[1] > 0), key=lambda item: -item[1]):
        if wanted == "*":
            return next((tag for tag in available if tag.lower() not in refused), available[0])
        for prefix in _ever_wider(wanted):
            for tag in available:
                if f"{tag.lower()}-".startswith(f"{prefix}-"):
                    return tag
    return available[0]


def _weighed(item: str) -> tuple[str, float]:
    tag, _, parameter = item.partition(";")
    name, _, value = parameter.partition("=")
    try:
        weight = float(value) if name.strip().lower() == "q" else 1.0
    except ValueError:
        weight = 0.0
    return tag.strip().lower(), weight


def _ever_wider(tag: str) -> Iterable[str]:
    while tag:
        yield tag
        tag = tag.rpartition("-")[0]
