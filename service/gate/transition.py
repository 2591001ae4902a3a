"""Why: whoever asks afterwards why issuance paused must find the figures, in the log and in the history alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from service.domain.breaker import BreakerRecord
from service.domain.saturation import Sample


@dataclass(frozen=True, slots=True)
class Transition:
    """One record in the place of another, of a campaign or, without a name, the whole; and the last sample then."""

    campaign_id: str
    before: BreakerRecord
    after: BreakerRecord
    sample: Sample

    @property
    def facts(self) -> dict[str, Any]:
        """What happened, by whose word, and the figures that caused it."""
        override = self.after.override
        return {
            "campaign_id": self.campaign_id or None,
            "from": self.before.state,
            "to": self.after.state,
            "reason": self.after.reason,
            "epoch": self.after.epoch,
            "mode": override.mode,
            "actor": override.actor,
            "override_reason": override.reason,
            "override_expires_at_ms": override.expires_at_ms,
            "signals": {signal.value: round(value, 6) for signal, value in self.sample.items()},
        }


OnTransition: TypeAlias = Callable[[Transition], None]
