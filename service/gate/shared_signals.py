"""Why: what all replicas share (the store, the queue, the redemptions that wait) is read once for all of them.

Every replica judges the same readings by the same rule, so they agree without a vote.
"""

from typing import Final

from service.domain.breaker import BreakerPolicy
from service.domain.saturation import Sample, Signal, Watch, evaluate
from service.store.breaker_state import Pulse
from service.store.vitals import Vitals

VITALS_STALE_AFTER_MS: Final = 10_000
"""What was read so long ago says nothing any more: whoever should have read again cannot."""


class SharedSignals:
    """The shared signals as the pulses bring them."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self._policy = policy
        self._watch = Watch()
        self._vitals: Vitals | None = None
        self._vital_sample: Sample = {}
        self.sample: Sample = {}

    def judge(self, pulse: Pulse) -> str:
        """Return why the whole is sick by what this pulse brought, or nothing."""
        if pulse.vitals is not None and pulse.vitals != self._vitals:
            self._vital_sample = _sample(self._vitals, pulse.vitals)
            self._vitals = pulse.vitals
        if self._vitals is not None and pulse.now_ms - self._vitals.at_ms > VITALS_STALE_AFTER_MS:
            self._vitals, self._vital_sample = None, {}
        backlog = float(sum(ballot.backlog for ballot in pulse.ballots.values()))
        self.sample = {**self._vital_sample, Signal.REDEMPTION_BACKLOG: backlog}
        self._watch = evaluate(self.sample, self._watch, self._policy, self._policy.samples_to_trip)
        return self._watch.tripped[0] if self._watch.tripped else ""


def _sample(before: Vitals | None, vitals: Vitals) -> Sample:
    delayed_per_s = 0.0
    if before is not None and before.at_ms < vitals.at_ms:
        # A store that started anew counts from 0 again.
        delayed_per_s = max(0, vitals.delayed_fsyncs - before.delayed_fsyncs) * 1000 / (vitals.at_ms - before.at_ms)
    sample = {Signal.STORE_DISK_DELAY: delayed_per_s, Signal.JOB_WAIT: vitals.oldest_job_s}
    if vitals.memory_max_bytes:
        sample[Signal.STORE_MEMORY] = vitals.memory_bytes / vitals.memory_max_bytes
    return sample
