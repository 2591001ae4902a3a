"""Why: two figures may be divided only if they were taken side by side, so every load runs once in every round."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from loadtest.bench.pace import ask_at_pace
from loadtest.bench.people import Visit, visit
from loadtest.bench.processes import Cores, cpu_s, pinned
from loadtest.bench.samples import Load, Paced, Sample
from loadtest.bench.scene import KINDS, Scene
from loadtest.bench.systems import System
from loadtest.bench.tally import Answers, Tally, answer_violations, ledger_violations
from loadtest.intervals import quantile
from service.cli.failures import CommandError, ExitCode

WARM_UP_S: Final = 1
SETTLE_TIMEOUT_S: Final = 10.0
SETTLE_POLL_S: Final = 0.3
MOST_ATTEMPTS: Final = 3
"""How often a run is begun when the breaker pauses issuance in the middle of it, as it should on a busy machine."""


Measured = TypeVar("Measured", Sample, Paced)


@dataclass(frozen=True, slots=True)
class _Run(Generic[Measured]):
    """What was measured, what was answered, and the tallies around it."""

    measured: Measured
    answers: Answers
    before: Tally
    after: Tally


class Rounds:
    """Runs loads, each at its system. Its methods raise CommandError, above all when a coupon is wrong."""

    def __init__(self, scene: Scene, systems: Mapping[Load, System], cores: Cores) -> None:
        self._scene = scene
        self._systems = systems
        self._cores = cores

    def take(self, number: int, load: Load, connections: int, seconds: int) -> Sample:
        """Run one load in round `number`."""

        def run() -> _Run[Sample]:
            with self._scene.paused() if load is Load.PAUSED else nullcontext():
                self._visit(load, self._scene.wishes(load, WARM_UP_S), connections, WARM_UP_S)
                wishes = self._scene.wishes(load, seconds)
                before = self._settled(load)
                with self._undisturbed(load):
                    sample, answers = self._measure(number, load, wishes, connections, seconds)
                return _Run(sample, answers, before, self._settled(load))

        sample, attempt = self._until_right(load, connections, run)
        return replace(sample, attempt=attempt)

    def take_pace(self, number: int, connections: int, per_second: float, seconds: int) -> Paced:
        """Issue at a fixed pace."""
        load = Load.ISSUE

        def run() -> _Run[Paced]:
            requests = self._scene.requests(round(per_second * seconds))
            before = self._settled(load)
            with self._undisturbed(load), pinned(self._cores.load):
                walked = ask_at_pace(self._systems[load].port, requests, connections, per_second, seconds)
            p50_ms, p99_ms = quantile(walked.times_ms, 0.5), quantile(walked.times_ms, 0.99)
            late_p99_ms = quantile(walked.late_ms, 0.99)
            paced = Paced(number, connections, per_second, walked.answers.requests, p50_ms, p99_ms, late_p99_ms)
            return _Run(paced, walked.answers, before, self._settled(load))

        paced, attempt = self._until_right(load, connections, run)
        return replace(paced, attempt=attempt)

    def _until_right(self, load: Load, connections: int, run: Callable[[], _Run[Measured]]) -> tuple[Measured, int]:
        """What a run has measured, and at which attempt."""
        wrong: list[str] = []
        for attempt in range(1, MOST_ATTEMPTS + 1):
            self._scene.wait_until_issuing()
            done = run()
            wrong = self._wrong(load, done.answers, connections, done.before, done.after)
            if not wrong:
                return done.measured, attempt
            # A pause in its midst: by the time that a run is counted up the breaker may issue again.
            if load is Load.PAUSED or not done.after.since(done.before, KINDS[Load.PAUSED].outcome):
                break
        raise _wrong_run(load, wrong)

    def _wrong(self, load: Load, answers: Answers, connections: int, before: Tally, after: Tally) -> list[str]:
        outcome = KINDS[load].outcome
        wrong = list(answer_violations(answers, outcome))
        if self._systems[load].tally is not None:
            wrong += ledger_violations(answers, connections, outcome, before, after)
        return wrong

    def _measure(
        self, number: int, load: Load, wishes: tuple[str, ...], connections: int, seconds: int
    ) -> tuple[Sample, Answers]:
        system = self._systems[load]
        store = system.store
        calls = store.calls() if store else 0
        service_s, store_s = cpu_s(system.pid), cpu_s(store.pid) if store else 0.0
        seen = self._visit(load, wishes, connections, seconds)
        service_s, store_s = cpu_s(system.pid) - service_s, cpu_s(store.pid) - store_s if store else 0.0
        sample = Sample(
            load=load,
            round=number,
            connections=connections,
            requests=seen.answers.requests,
            seconds=seen.seconds,
            p50_ms=seen.p50_ms,
            p99_ms=seen.p99_ms,
            service_cpu_s=service_s,
            store_cpu_s=store_s,
            people_cpu_s=seen.cpu_s,
            store_calls=store.calls() - calls if store else 0,
        )
        return sample, seen.answers

    def _undisturbed(self, load: Load) -> AbstractContextManager[None]:
        store = self._systems[load].store
        return store.without_rewrites() if store else nullcontext()

    def _visit(self, load: Load, wishes: tuple[str, ...], connections: int, seconds: int) -> Visit:
        return visit(self._systems[load].port, wishes, connections, seconds, self._cores.load)

    def _settled(self, load: Load) -> Tally:
        """The tally when nothing moves any more: what nobody waited for may still be decided."""
        tally = self._systems[load].tally
        if tally is None:
            return Tally()
        campaign_id = KINDS[load].campaign_id
        seen, deadline_s = tally(campaign_id), time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < deadline_s:
            time.sleep(SETTLE_POLL_S)
            again = tally(campaign_id)
            if again == seen:
                break
            seen = again
        return seen


def _wrong_run(load: Load, wrong: Sequence[str]) -> CommandError:
    return CommandError(f"{load}: {'; '.join(wrong)}", ExitCode.REFUSED)
