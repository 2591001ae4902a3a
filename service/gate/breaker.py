"""Why: all replicas must pause and reopen as one, without asking each other while anybody waits.

Each feels for itself, votes by its pulse, and proposes what follows from the votes; the store lets one proposal win.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from service.domain.breaker import NEVER_CHANGED, BreakerPolicy, BreakerRecord, Mode, Override, overridden
from service.domain.saturation import Sample, Signal
from service.gate.circuit import Circuit, Times
from service.gate.circuits import Circuits
from service.gate.signals import SAMPLE_INTERVAL_S, Signals, failure_of
from service.gate.transition import OnTransition, Transition
from service.store.breaker_state import WHOLE, Ballot, Proposal, Pulse, SharedBreakerState, TooManyBreakers
from service.store.scripts import StoreError
from service.store.vitals import Vitals

POLL_INTERVAL_S: Final = 0.25
FIRST_RECONNECT_S: Final = 0.05
LONGEST_RECONNECT_S: Final = 1.0
OVERRIDE_ATTEMPTS: Final = 5


class Breaker(Circuits):
    """The circuits of this process, in agreement with the other replicas'.

    Await `tick` once before serving, then keep `run` running. `on_transition` hears of every change of a shared
    record, `on_own_transition` of this replica's own records; they must not raise. `read_vitals` returns what the
    store says of itself at that time of the store.
    """

    def __init__(
        self,
        signals: Signals,
        shared: SharedBreakerState,
        policy: BreakerPolicy,
        replica_id: str,
        read_vitals: Callable[[int], Awaitable[Vitals]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(signals, policy, clock, draw)
        self._shared = shared
        self._replica_id = replica_id
        self._read_vitals = read_vitals
        self._vitals: Vitals | None = None
        self._vitals_due = asyncio.Event()
        self._vote_changed = asyncio.Event()
        self._asking_since_s: float | None = None
        self.on_transition: list[OnTransition] = []
        self.on_own_transition: list[OnTransition] = []

    async def override(
        self, mode: Mode, actor: str, reason: str, ttl_s: float | None, campaign_id: str = WHOLE
    ) -> BreakerRecord:
        """Put the operator's word in force, here at once and elsewhere by message, and return the record.

        Raises StoreError if the store cannot be asked, or the record kept changing meanwhile, and TooManyBreakers.
        """
        for _attempt in range(OVERRIDE_ATTEMPTS):
            await self._exchange()
            now_ms = self._times().shared_ms
            expires_at_ms = None if ttl_s is None else now_ms + round(ttl_s * 1000)
            word = Override(mode, actor, reason, expires_at_ms)
            proposal = overridden(self._circuit(campaign_id).record, word, now_ms, self._policy)
            if await self._propose(campaign_id, proposal):
                return proposal
        raise StoreError(f"the breaker kept changing: gave up after {OVERRIDE_ATTEMPTS} attempts")

    async def run(self) -> None:
        """Sample, confer and listen until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_sampling())
            tasks.create_task(self._keep_conferring())
            tasks.create_task(self._keep_listening())
            tasks.create_task(self._keep_reading_vitals())

    async def tick(self) -> None:
        """Take one step of everything but the subscription: a sample, then a word with the other replicas."""
        self._take_sample()
        await self._confer()
        if self._vitals_due.is_set():
            await self._take_vitals()

    async def _keep_sampling(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL_S)
            self._take_sample()

    async def _keep_conferring(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            next_poll_s = loop.time() + POLL_INTERVAL_S
            self._vote_changed.clear()
            await self._confer()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_poll_s):
                    await self._vote_changed.wait()

    async def _keep_listening(self) -> None:
        pause_s = FIRST_RECONNECT_S
        while True:
            began_s = self._clock()
            with suppress(StoreError):
                await self._shared.follow(self._adopt_newer)
            if self._clock() - began_s > LONGEST_RECONNECT_S:
                pause_s = FIRST_RECONNECT_S
            await asyncio.sleep(pause_s * (0.5 + self._draw() / 2))
            pause_s = min(2 * pause_s, LONGEST_RECONNECT_S)

    async def _keep_reading_vitals(self) -> None:
        while True:
            await self._vitals_due.wait()
            await self._take_vitals()

    async def _take_vitals(self) -> None:
        self._vitals_due.clear()
        if self._read_vitals is not None:
            with suppress(StoreError):
                self._vitals = await self._read_vitals(self._times().shared_ms)

    def _take_sample(self) -> None:
        now_s, times = self._clock(), self._times()
        asking_s = 0.0 if self._asking_since_s is None else now_s - self._asking_since_s
        reading = self._signals.sample(now_s, asking_s)
        self._note_silence(reading.whole.get(Signal.STORE_SILENCE, 0.0))
        for campaign_id, sample in reading.campaigns.items():
            self._feel(campaign_id, self._circuit(campaign_id), sample, times)
        for campaign_id in [name for name in self.campaigns if name not in reading.campaigns]:
            circuit = self.campaigns[campaign_id]
            self._feel(campaign_id, circuit, {}, times)
            if circuit.is_idle(times) and not circuit.record.epoch:
                del self.campaigns[campaign_id]
        self._feel(WHOLE, self.whole, reading.whole, times)
        self._refresh_shares()

    def _feel(self, campaign_id: str, circuit: Circuit, sample: Sample, times: Times) -> None:
        before = circuit.feel(sample, times.own_ms, self._draw())
        if circuit.own_record is not before:
            self._vote_changed.set()
            self._announce(self.on_own_transition, campaign_id, before, circuit.own_record)

    async def _confer(self) -> None:
        try:
            pulse = await self._exchange()
            times = self._times()
            sick = self._shared_signals.judge(pulse)
            for campaign_id, circuit in self._circuits():
                votes = [ballot.sick.get(campaign_id, "") for ballot in pulse.ballots.values()]
                due = circuit.confer(votes, "" if campaign_id else sick, times.shared_ms, self._draw())
                with suppress(TooManyBreakers):
                    if due is not circuit.record:
                        await self._propose(campaign_id, due)
                    elif campaign_id and due.epoch and circuit.is_idle(times):
                        await self._propose(campaign_id, None)
        except StoreError:
            for _campaign_id, circuit in self._circuits():
                circuit.outvoted = True

    async def _exchange(self) -> Pulse:
        known = {campaign_id: circuit.record for campaign_id, circuit in self._circuits()}
        sick = {campaign_id: circuit.vote for campaign_id, circuit in self._circuits() if circuit.vote}
        vitals, self._vitals = self._vitals, None
        self._asking_since_s = began_s = self._clock()
        try:
            ballot = Ballot(sick, _about(self._signals.backlog()))
            pulse = await self._shared.pulse(self._replica_id, ballot, vitals)
        except StoreError as error:
            self._signals.observe_call(self._clock() - began_s, failure_of(error))
            raise
        finally:
            self._asking_since_s = None
        self._signals.observe_call(self._clock() - began_s, None)
        self._set_store_clock(pulse.now_ms)
        if pulse.vitals_due:
            self._vitals_due.set()
        for campaign_id in {*known, *pulse.records}:
            # Unless a message overtook the answer, the store's word holds, be it older: it may have been restored.
            if self._circuit(campaign_id).record == known.get(campaign_id, NEVER_CHANGED):
                self._adopt(campaign_id, pulse.records.get(campaign_id, NEVER_CHANGED))
        return pulse

    async def _propose(self, campaign_id: str, proposal: BreakerRecord | None) -> bool:
        circuit = self._circuit(campaign_id)
        transition = Transition(campaign_id, circuit.record, proposal or NEVER_CHANGED, self._figures(campaign_id))
        in_force = await self._shared.change(Proposal(campaign_id, circuit.record.epoch, proposal, transition.facts))
        if proposal is None and not in_force.epoch:
            self._adopt(campaign_id, in_force)
        else:
            self._adopt_newer(campaign_id, in_force)
        return in_force == proposal

    def _adopt_newer(self, campaign_id: str, record: BreakerRecord) -> None:
        if record.epoch > self._circuit(campaign_id).record.epoch:
            self._adopt(campaign_id, record)

    def _adopt(self, campaign_id: str, record: BreakerRecord) -> None:
        circuit = self._circuit(campaign_id)
        if record == circuit.record:
            return
        before = circuit.record
        circuit.adopt(record)
        self._refresh_shares()
        self._announce(self.on_transition, campaign_id, before, record)

    def _announce(
        self, listeners: list[OnTransition], campaign_id: str, before: BreakerRecord, after: BreakerRecord
    ) -> None:
        for listener in listeners:
            listener(Transition(campaign_id, before, after, self._figures(campaign_id)))

    def _figures(self, campaign_id: str) -> Sample:
        return self._circuit(campaign_id).sample if campaign_id else self.sample


def _about(number: int) -> int:
    """The number's size as a power of two, so that a ballot changes seldom; small ones are none."""
    return 1 << number.bit_length() - 1 if number >= 64 else 0
