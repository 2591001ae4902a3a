"""Why: whether somebody may have a coupon now must be known without waiting, from variables of this process.

There is a breaker for the whole and one for each campaign that needs it; whoever wants a coupon passes both.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final
from zlib import crc32

from service.domain.breaker import BreakerPolicy, BreakerRecord, Issuance, Mode, Override, State, share_permille
from service.domain.ramp import ALL
from service.domain.saturation import Sample, Signal
from service.gate.circuit import Circuit, Returns, Times
from service.gate.shared_signals import SharedSignals
from service.gate.signals import Signals
from service.store.breaker_state import WHOLE

HOLD_SPREAD_S: Final = 3
"""Whoever comes while the store owes an answer is sent back within so many seconds: the silence may be short."""
HOLD_TOLD_AFTER_MS: Final = 300
"""A shorter silence is over before anybody reads of it; of a store that is away all are told within half a second."""


@dataclass(frozen=True, slots=True)
class IssuanceStatus:
    """What the public may know. `retry_after_s` is 0 while issuing; a hold is paused only until the store answers."""

    issuance: Issuance
    reason: str
    since_ms: int
    retry_after_s: int
    mode: Mode
    epoch: int
    override: Override
    is_hold: bool = False


class Circuits:
    """All breakers as this process sees them: what requests ask, and what the public is told.

    `clock` is monotonic, in seconds; own records count by it, shared ones by the store's time. `draw` returns a random
    number from 0 up to 1. `on_shadow_refusal` hears of each campaign's request that only the shadow let pass, and
    `on_told_hold` when `status` begins or ends to tell of a hold.
    """

    def __init__(
        self,
        signals: Signals,
        policy: BreakerPolicy,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._signals = signals
        self._policy = policy
        self._clock = clock
        self._draw = draw
        self._shared_signals = SharedSignals(policy)
        # A guess, until the first pulse brings the store's own time.
        self._store_ahead_ms = round(time.time() * 1000) - self._own_ms()
        self._started_ms = self._times().shared_ms
        self._silence_ms = 0
        self._silent_since_ms = 0
        self._told_hold = False
        self._shares: dict[str, int] = {}
        self._shadows: dict[str, int] = {}
        self._returns: dict[str, Returns | None] = {}
        self._returns_at_ms = 0
        self.whole = Circuit(policy)
        self.campaigns: dict[str, Circuit] = {}
        self.share_permille = ALL
        self.sheds_newcomers = False
        self.on_shadow_refusal: list[Callable[[str], None]] = []
        self.on_told_hold: list[Callable[[], None]] = []

    @property
    def sample(self) -> Sample:
        """The last reading of every signal, this process's own and the shared ones."""
        return {**self.whole.sample, **self._shared_signals.sample}

    @property
    def record(self) -> BreakerRecord:
        """The whole's record in force."""
        return self.whole.record

    @property
    def own_record(self) -> BreakerRecord:
        """The whole's record of this replica alone."""
        return self.whole.own_record

    @property
    def store_now_ms(self) -> int:
        """The store's time, reckoned on from its last answer."""
        return self._times().shared_ms

    @property
    def tells_hold(self) -> bool:
        """Whether nobody is let in until the store has answered, and `status` says so."""
        return self._holds and self._silence_ms >= HOLD_TOLD_AFTER_MS

    @property
    def in_flight_limit(self) -> float:
        """How many requests to issue may be in flight by the adaptive limit."""
        return self._signals.limit.limit

    def refuses_everybody(self, campaign_id: str) -> bool:
        """Tell whether nobody at all may have one of the campaign's coupons now; it is asked first of every request."""
        if not self.share_permille:
            return True
        return bool(self._shares) and not self._shares.get(campaign_id, ALL)

    def admits(self, campaign_id: str, user_id: str) -> bool:
        """Tell whether the user may pass now. During a ramp, who may pass once may pass until its end."""
        share = min(self.share_permille, self._shares.get(campaign_id, ALL))
        if share != ALL and _place(user_id) >= share:
            return False
        if self._shadows:
            self._note_shadow(campaign_id, user_id)
        return True

    def retry_after_s(self, campaign_id: str, user_id: str | None = None) -> int:
        """Return when somebody who was refused should come back, each at a place of his own on the ramp."""
        own_ms = self._own_ms()
        # A stampede is refused by the dozen in each millisecond, and all of them alike but for their places.
        if own_ms != self._returns_at_ms:
            self._returns, self._returns_at_ms = {}, own_ms
        try:
            returns = self._returns[campaign_id]
        except KeyError:
            returns = self._returns[campaign_id] = self._returns_to(campaign_id, self._times_at(own_ms))
        if returns is None:
            return self._hold_over_in_s()
        return _whole_seconds(returns.stranger_in_ms() if user_id is None else returns.user_in_ms(_place(user_id)))

    def turn_due_in_ms(self, campaign_id: str, turn: int, per_second: float) -> int:
        """Return when a waiting line comes to its `turn`-th place, from 0 on, if it is served along the ramp.

        `per_second` is the rate at which it is served when nothing is paused any more.
        """
        times = self._times()
        return self._stricter(campaign_id, times).turn_due_in_ms(turn, per_second, times)

    def records_in_force(self, campaign_id: str) -> list[BreakerRecord]:
        """Return the shared records that may hold up the campaign's callers: the whole's, and its own if it has one."""
        circuits = [self.whole, self.campaigns.get(campaign_id)]
        return [circuit.record for circuit in circuits if circuit and not self._mode_of(circuit).refuses_nobody]

    def agreed_share_permille(self, campaign_id: str) -> int:
        """Return how many in a thousand users all replicas let in, whatever this one decides by itself."""
        records, now_ms = self.records_in_force(campaign_id), self._times().shared_ms
        return min((share_permille(record, now_ms, self._policy) for record in records), default=ALL)

    def status(self, campaign_id: str = WHOLE) -> IssuanceStatus:
        """Return what this process tells the public, of a campaign too: what decides here is the strictest."""
        status = self._status(self._stricter(campaign_id, self._times()))
        return self._held(status) if self.tells_hold and status.issuance is not Issuance.PAUSED else status

    def breaker_status(self, campaign_id: str = WHOLE) -> IssuanceStatus:
        """Return where one breaker stands by itself, whatever the others say."""
        return self._status(self._circuit(campaign_id))

    @property
    def sheds_alone(self) -> bool:
        """Whether this replica is sick and the others are not, or it cannot ask them: then it must not be ready."""
        return self.whole.sheds_alone and not self.whole.mode.refuses_nobody

    def _status(self, circuit: Circuit) -> IssuanceStatus:
        times = self._times()
        record, now_ms = circuit.ruling(times)
        refuses = not self._mode_of(circuit).refuses_nobody and record.state is not State.CLOSED
        return IssuanceStatus(
            issuance=record.issuance if refuses else Issuance.ISSUING,
            reason=record.reason,
            since_ms=times.shared_ms - (now_ms - record.since_ms) if record.since_ms else self._started_ms,
            retry_after_s=_whole_seconds(circuit.stranger_due_in_ms(self._draw(), times)) if refuses else 0,
            mode=circuit.mode,
            epoch=circuit.record.epoch,
            override=circuit.record.override,
        )

    def _held(self, status: IssuanceStatus) -> IssuanceStatus:
        return replace(
            status,
            issuance=Issuance.PAUSED,
            reason=Signal.STORE_SILENCE,
            since_ms=self._silent_since_ms + self._store_ahead_ms,
            retry_after_s=max(status.retry_after_s, self._hold_over_in_s()),
            is_hold=True,
        )

    def _hold_over_in_s(self) -> int:
        return 1 + int(self._draw() * HOLD_SPREAD_S)

    def _returns_to(self, campaign_id: str, times: Times) -> Returns | None:
        """How those come back whom the breaker refuses; None if it does not, and the store only owes an answer."""
        circuit = self._stricter(campaign_id, times)
        if circuit.decided_share(times) == ALL:
            return None
        of_whom = WHOLE if circuit is self.whole else campaign_id
        return circuit.returns(self._signals.campaigns.peak_per_second(of_whom), times)

    def _circuits(self) -> list[tuple[str, Circuit]]:
        return [(WHOLE, self.whole), *self.campaigns.items()]

    def _circuit(self, campaign_id: str) -> Circuit:
        if not campaign_id:
            return self.whole
        circuit = self.campaigns.get(campaign_id)
        if circuit is None:
            circuit = self.campaigns[campaign_id] = Circuit(self._policy)
        return circuit

    def _stricter(self, campaign_id: str, times: Times) -> Circuit:
        """The breaker that decides about a campaign's request: the campaign's own, or the whole's."""
        circuit = self.campaigns.get(campaign_id)
        if circuit is None or self._mode_of(circuit).refuses_nobody:
            return self.whole
        if self.whole.mode.refuses_nobody or circuit.decided_share(times) < self.whole.decided_share(times):
            return circuit
        return self.whole

    def _mode_of(self, circuit: Circuit) -> Mode:
        """The mode in force. What the operator says of the whole holds for campaigns of which he said nothing."""
        follows_whole = circuit.mode is Mode.AUTO and self.whole.mode.refuses_nobody
        return self.whole.mode if follows_whole else circuit.mode

    def _refresh_shares(self) -> None:
        times = self._times()
        shares: dict[str, int] = {}
        shadows: dict[str, int] = {}
        for campaign_id, circuit in self._circuits():
            mode, share = self._mode_of(circuit), circuit.decided_share(times)
            if share != ALL and mode is Mode.SHADOW:
                shadows[campaign_id] = share
            elif share != ALL and mode is not Mode.FORCED_CLOSED:
                shares[campaign_id] = share
        whole = shares.pop(WHOLE, ALL)
        self.share_permille = 0 if self._holds else whole
        self._shares, self._shadows, self._returns = shares, shadows, {}
        self.sheds_newcomers = self.whole.runs_late and not self.whole.mode.refuses_nobody
        if self._told_hold is not self.tells_hold:
            self._told_hold = self.tells_hold
            for listener in self.on_told_hold:
                listener()

    @property
    def _holds(self) -> bool:
        """Whether nobody is let in until the store has answered, which is no pause yet, and needs no ramp."""
        return self.whole.mode is Mode.AUTO and self._silence_ms >= self._policy.hold_after_ms

    def _note_silence(self, silence_s: float) -> None:
        was_silent, self._silence_ms = bool(self._silence_ms), round(silence_s * 1000)
        if not was_silent:
            self._silent_since_ms = self._own_ms() - self._silence_ms

    def _note_shadow(self, campaign_id: str, user_id: str) -> None:
        share = min(self._shadows.get(WHOLE, ALL), self._shadows.get(campaign_id, ALL))
        if _place(user_id) >= share:
            for listener in self.on_shadow_refusal:
                listener(campaign_id)

    def _set_store_clock(self, store_ms: int) -> None:
        self._store_ahead_ms, self._returns = store_ms - self._own_ms(), {}

    def _own_ms(self) -> int:
        return int(self._clock() * 1000)

    def _times(self) -> Times:
        return self._times_at(self._own_ms())

    def _times_at(self, own_ms: int) -> Times:
        return Times(own_ms + self._store_ahead_ms, own_ms)


def _place(user_id: str) -> int:
    return crc32(user_id.encode()) % ALL


def _whole_seconds(wait_ms: int) -> int:
    return max(1, -(-wait_ms // 1000))
