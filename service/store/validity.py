"""A campaign's validity in the form that the scripts read: worked out as far as can be when the campaign is written.

What is long is packed into text, so that a script that does not look at it hardly pays for it.
"""

from collections.abc import Iterable
from datetime import date
from itertools import chain

from service.domain.opening import WEEK, Opening, Span, epoch_day
from service.domain.validity import FixedValidity, FixedWaves, Offsets, RelativeValidity, RelativeWaves, Validity


def pack_validity(validity: Validity, shard: int) -> dict[str, object]:
    """The validity for one shard, as the scripts read it; what does not apply is left out."""
    fields: dict[str, object]
    match validity:
        case FixedValidity():
            fields = {"starts_at": validity.starts_at_ms, "expires_at": validity.expires_at_ms}
        case RelativeValidity():
            fields = {
                "wait_days": validity.wait.days,
                "wait_ms": validity.wait.exact_ms,
                "days": validity.duration.days,
                "exact_ms": validity.duration.exact_ms,
            }
    fields |= {
        "offsets": _offsets(validity.offsets),
        "opening": validity.opening and _opening(validity.opening),
        "waves": validity.waves and _waves(validity.waves, shard),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _offsets(offsets: Offsets) -> list[int] | None:
    return list(chain.from_iterable(offsets)) or None


def _opening(opening: Opening) -> dict[str, object]:
    return {
        "week": [_spans(opening.spans_on(weekday)) for weekday in WEEK],
        "any_day": _spans(opening.spans_on(None)),
        "excluded_dates": _dates(opening.excluded_dates),
        "extra_dates": _dates(opening.extra_dates),
    }


def _spans(spans: Iterable[Span]) -> bytes:
    """Two bytes for each end of a span, in minutes."""
    return b"".join(minute.to_bytes(2, "big") for minute in chain.from_iterable(spans))


def _dates(dates: Iterable[date]) -> bytes:
    """Three bytes for each date, in order."""
    return b"".join(epoch_day(on).to_bytes(3, "big") for on in sorted(dates))


def _waves(waves: FixedWaves | RelativeWaves, shard: int) -> dict[str, object]:
    """Each shard begins with another wave, so that waves are even over all shards too."""
    match waves:
        case FixedWaves():
            count = len(waves.starts_at_ms)
            return {"count": count, "first": shard % count, "starts": list(waves.starts_at_ms)}
        case RelativeWaves(count, every):
            return {"count": count, "first": shard % count, "days": every.days, "ms": every.exact_ms}
