"""Why: one replica's measures and all replicas' votes become one number that the hot path reads without waiting.

The pure machine of `service.domain.breaker` runs twice: on the record all replicas share, and on this replica's own.
Its own sheds when it alone is sick, or cannot reach the store, and is its vote in the quorum that moves the shared one.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias
from zlib import crc32

from service.domain.breaker import (
    ALL,
    BreakerPolicy,
    BreakerRecord,
    Issuance,
    Mode,
    Override,
    Sample,
    State,
    Verdict,
    Watch,
    advance,
    evaluate,
    judge,
    overridden,
    quorum,
    ramp_begins_in_ms,
    ramp_invites_after_ms,
    ramp_reaches_after_ms,
    share_permille,
)
from service.gate.signals import SAMPLE_INTERVAL_S, Signals, failure_of
from service.store.breaker_state import SharedBreakerState
from service.store.scripts import StoreError

POLL_INTERVAL_S: Final = 0.25
FIRST_RECONNECT_S: Final = 0.05
LONGEST_RECONNECT_S: Final = 1.0
OVERRIDE_ATTEMPTS: Final = 5

OnTransition: TypeAlias = Callable[[BreakerRecord, BreakerRecord, Sample], None]


@dataclass(frozen=True, slots=True)
class IssuanceStatus:
    """What the public may know. `retry_after_s` is 0 while issuing."""

    issuance: Issuance
    reason: str
    since_ms: int
    retry_after_s: int
    mode: Mode
    epoch: int


class Breaker:
    """This process's view of the breaker. Await `tick` once before serving, then keep `run` running.

    `on_transition` hears of every change of the shared `record`, `on_own_transition` of this replica's `own_record`;
    both get the old record, the new one and the last sample, and must not raise. `clock` is monotonic, in seconds;
    `own_record` counts by it, `record` by the store's time. `draw` returns a random number from 0 up to 1.
    """

    def __init__(
        self,
        signals: Signals,
        shared: SharedBreakerState,
        policy: BreakerPolicy,
        replica_id: str,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._signals = signals
        self._shared = shared
        self._policy = policy
        self._replica_id = replica_id
        self._clock = clock
        self._draw = draw
        self._watch = Watch()
        self._own_verdict = Verdict()
        self._verdict = Verdict()
        self._outvoted = True
        self._vote_changed = asyncio.Event()
        # A guess, until the first pulse brings the store's own time.
        self._store_ahead_ms = round(time.time() * 1000) - self._own_now_ms()
        self._started_ms = self._now_ms()
        self.record = BreakerRecord()
        self.own_record = BreakerRecord()
        self.sample: Sample = {}
        self.share_permille = ALL
        self.on_transition: list[OnTransition] = []
        self.on_own_transition: list[OnTransition] = []

    def admits_user(self, user_id: str) -> bool:
        """Tell whether the user may pass now. During a ramp, who may pass once may pass until its end."""
        return self.share_permille == ALL or _place(user_id) < self.share_permille

    def retry_after_s(self, user_id: str | None = None) -> int:
        """Return when to come back: a user when the ramp reaches him, a stranger at a place drawn on the ramp."""
        record, now_ms = self._ruling()
        if record.state is State.CLOSED:
            return 0
        begins_in_ms = ramp_begins_in_ms(record, now_ms, self._policy)
        if user_id is not None:
            wait_ms: float = begins_in_ms + ramp_reaches_after_ms(_place(user_id), self._policy)
        elif record.state is State.OPEN:
            wait_ms = begins_in_ms + ramp_invites_after_ms(self._draw(), self._policy)
        else:
            wait_ms = self._draw() * (begins_in_ms + self._policy.ramp_ms)
        return max(1, math.ceil(wait_ms / 1000))

    def status(self) -> IssuanceStatus:
        """Return what this process tells the public: its own state where that is the stricter one."""
        record, now_ms = self._ruling()
        return IssuanceStatus(
            issuance=record.issuance,
            reason=record.reason,
            since_ms=self._now_ms() - (now_ms - record.since_ms) if record.since_ms else self._started_ms,
            retry_after_s=self.retry_after_s(),
            mode=self.record.override.mode,
            epoch=self.record.epoch,
        )

    @property
    def sheds_alone(self) -> bool:
        """Whether this replica is sick and the others are not, or it cannot ask them: then it must not be ready."""
        return self.own_record.state is State.OPEN and self._outvoted

    async def override(self, mode: Mode, actor: str, reason: str, ttl_s: float | None) -> BreakerRecord:
        """Put the operator's word in force, here at once and elsewhere by message, and return the record.

        Raises StoreError if the store cannot be asked, or the record kept changing meanwhile.
        """
        for _attempt in range(OVERRIDE_ATTEMPTS):
            await self._exchange()
            now_ms = self._now_ms()
            expires_at_ms = None if ttl_s is None else now_ms + round(ttl_s * 1000)
            proposal = overridden(self.record, Override(mode, actor, reason, expires_at_ms), now_ms, self._policy)
            if await self._propose(proposal):
                return proposal
        raise StoreError(f"the breaker kept changing: gave up after {OVERRIDE_ATTEMPTS} attempts")

    async def run(self) -> None:
        """Sample, confer and listen until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_sampling())
            tasks.create_task(self._keep_conferring())
            tasks.create_task(self._keep_listening())

    async def tick(self) -> None:
        """Take one step of everything but the subscription: a sample, then a word with the other replicas."""
        self._take_sample()
        await self._confer()

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

    def _take_sample(self) -> None:
        self.sample = self._signals.sample(self._clock())
        self._watch = evaluate(self.sample, self._watch, self._policy)
        sick = self._watch.tripped[0] if self._watch.tripped else ""
        now_ms = self._own_now_ms()
        self._own_verdict = judge(self._own_verdict, sick, now_ms)
        before, self.own_record = self.own_record, advance(self.own_record, self._own_verdict, now_ms, self._policy)
        self._refresh_share()
        if self.own_record is not before:
            self._vote_changed.set()
            self._announce(self.on_own_transition, before, self.own_record)

    async def _confer(self) -> None:
        try:
            votes = await self._exchange()
            sick = quorum(votes)
            self._outvoted = not sick
            self._verdict = judge(self._verdict, sick, self._now_ms())
            await self._propose(advance(self.record, self._verdict, self._now_ms(), self._policy))
        except StoreError:
            self._outvoted = True

    async def _exchange(self) -> Mapping[str, str]:
        known, began_s = self.record, self._clock()
        # Not the signals of this moment: a replica that sheds is soon well, and must still count while others sicken.
        vote = self.own_record.reason if self.own_record.state is State.OPEN else ""
        try:
            pulse = await self._shared.pulse(self._replica_id, vote)
        except StoreError as error:
            self._signals.observe_call(self._clock() - began_s, failure_of(error))
            raise
        self._signals.observe_call(self._clock() - began_s, None)
        self._store_ahead_ms = pulse.now_ms - self._own_now_ms()
        if self.record is known:
            # Unless a message overtook the answer, the store's word holds, be it older: it may have been restored.
            self._adopt(pulse.record)
        return pulse.votes

    async def _propose(self, proposal: BreakerRecord) -> bool:
        if proposal is self.record:
            return True
        in_force = await self._shared.change(self.record, proposal)
        self._adopt_newer(in_force)
        return in_force == proposal

    def _adopt_newer(self, record: BreakerRecord) -> None:
        if record.epoch > self.record.epoch:
            self._adopt(record)

    def _adopt(self, record: BreakerRecord) -> None:
        if record == self.record:
            return
        before, self.record = self.record, record
        self._refresh_share()
        self._announce(self.on_transition, before, record)

    def _announce(self, listeners: list[OnTransition], before: BreakerRecord, after: BreakerRecord) -> None:
        for listener in listeners:
            listener(before, after, self.sample)

    def _ruling(self) -> tuple[BreakerRecord, int]:
        """Return the record that decides here, and the time by which it counts: the operator's, else the stricter."""
        now_ms, own_now_ms = self._now_ms(), self._own_now_ms()
        own_share = share_permille(self.own_record, own_now_ms, self._policy)
        if self.record.override.mode is Mode.AUTO and own_share < share_permille(self.record, now_ms, self._policy):
            return self.own_record, own_now_ms
        return self.record, now_ms

    def _refresh_share(self) -> None:
        record, now_ms = self._ruling()
        self.share_permille = share_permille(record, now_ms, self._policy)

    def _own_now_ms(self) -> int:
        return int(self._clock() * 1000)

    def _now_ms(self) -> int:
        return self._own_now_ms() + self._store_ahead_ms


def _place(user_id: str) -> int:
    return crc32(user_id.encode()) % ALL
