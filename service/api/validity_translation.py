"""Validity between the wire's words and the domain's rule, both ways."""

from datetime import datetime
from typing import Any

from service.api.spelling import moment_text
from service.api.validity import Validity, Waves
from service.api.vocabulary import milliseconds
from service.domain import validity as domain
from service.domain.opening import Hours, Opening, clock_text
from service.domain.validity import Duration, FixedValidity, FixedWaves, RelativeValidity, RelativeWaves


def read_validity(given: Validity, now_ms: int) -> domain.Validity:
    """The rule of a campaign that is written now, with all that its zone says about it."""
    opening, waves = _opening(given), given.waves
    if given.expires_at is not None:
        starts_at_ms = None if given.starts_at is None else milliseconds(given.starts_at)
        return FixedValidity(
            given.timezone,
            starts_at_ms,
            milliseconds(given.expires_at),
            offsets=() if opening is None else domain.zone_offsets(given.timezone, now_ms),
            opening=opening,
            waves=None if waves is None or starts_at_ms is None else _fixed(waves, starts_at_ms, given.timezone),
        )
    assert given.duration is not None
    return RelativeValidity(
        given.timezone,
        Duration.parse(given.wait or "P0D"),
        Duration.parse(given.duration),
        domain.zone_offsets(given.timezone, now_ms),
        opening=opening,
        waves=None if waves is None else RelativeWaves(waves.count, Duration.parse(waves.every)),
    )


def validity_body(rule: domain.Validity) -> dict[str, Any]:
    """The rule as it was given."""
    opening = rule.opening or Opening()
    return _window_body(rule) | {
        "timezone": rule.timezone,
        "hours": [_hours_body(entry) for entry in opening.hours] or None,
        "excluded_dates": sorted(opening.excluded_dates),
        "extra_dates": sorted(opening.extra_dates),
    }


def _opening(given: Validity) -> Opening | None:
    hours = tuple(entry.rule() for entry in given.hours or ())
    opening = Opening(hours, frozenset(given.excluded_dates), frozenset(given.extra_dates))
    return None if opening == Opening() else opening


def _fixed(waves: Waves, starts_at_ms: int, zone: str) -> FixedWaves:
    every = Duration.parse(waves.every)
    return FixedWaves(every, domain.wave_starts(starts_at_ms, waves.count, every, zone))


def _window_body(rule: domain.Validity) -> dict[str, Any]:
    match rule:
        case FixedValidity(timezone, starts_at_ms, expires_at_ms, waves=fixed):
            return {
                "starts_at": None if starts_at_ms is None else _moment(starts_at_ms, timezone),
                "expires_at": _moment(expires_at_ms, timezone),
                "waves": fixed and {"count": len(fixed.starts_at_ms), "every": str(fixed.every)},
            }
        case RelativeValidity(_, wait, duration, waves=relative):
            return {
                "wait": str(wait),
                "duration": str(duration),
                "waves": relative and {"count": relative.count, "every": str(relative.every)},
            }


def _hours_body(entry: Hours) -> dict[str, Any]:
    return {"days": list(entry.days), "from": clock_text(entry.from_minute), "to": clock_text(entry.to_minute)}


def _moment(instant_ms: int, zone: str) -> datetime:
    return datetime.fromisoformat(moment_text(instant_ms, zone))
