"""Why: a bench in the order in which it can be trusted: side by side first, then what needs that or stands alone."""

import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from loadtest.bench.campaigns import open_campaign
from loadtest.bench.growth import Scale, weigh
from loadtest.bench.processes import Cores, pinned, two_cores
from loadtest.bench.profile import profiled
from loadtest.bench.rounds import Rounds
from loadtest.bench.samples import LOADS, Findings, Group, Idle, Load, Paced
from loadtest.bench.scene import Scene
from loadtest.bench.store_room import IDLE_ISSUES, store_room
from loadtest.bench.systems import System, Tidegate, bare, nginx, plain_fastapi, tidegate
from service.cli.failures import CommandError

PEAK_SHARE: Final = 0.5
IDLE: Final = "bench-idle"
OTHERS: Final = {Load.PLAIN_FASTAPI: plain_fastapi, Load.NGINX: nginx, Load.BARE: bare}
WAYS_OUT: Final = {Load.NGINX: "apt install nginx libnginx-mod-http-lua lua-nginx-redis lua-cjson"}
"""For what is not installed with Tidegate; the bench goes on without it."""
NO_WRK: Final = "wrk is not installed: apt install wrk"

Tell = Callable[[str], None]
"""Told what is being done."""


@dataclass(frozen=True, slots=True)
class Task:
    """What to measure, and how thoroughly; `coupons` is the size of the campaign that is weighed."""

    groups: tuple[Group, ...]
    rounds: int
    seconds: int
    connections: tuple[int, ...]
    coupons: int
    profile: bool

    @property
    def loads(self) -> tuple[Load, ...]:
        """All loads that the groups need, in their order."""
        needed = {load for group in self.groups for load in LOADS[group]}
        return tuple(load for load in Load if load in needed)


def measure(task: Task, tell: Tell) -> Findings:
    """Start everything, measure, stop everything. Raises CommandError, StoreError, httpx.HTTPError or OSError."""
    cores = two_cores()
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder:
        if task.loads and shutil.which("wrk") is None:
            findings = replace(findings, missing=dict.fromkeys(task.loads, NO_WRK))
        elif task.loads:
            findings = _compare(task, Path(folder), cores, tell)
        if {Group.IDLE, Group.MEMORY} & set(task.groups):
            findings = _weigh(task, findings, Path(folder), cores, tell)
    return findings


def _compare(task: Task, folder: Path, cores: Cores, tell: Tell) -> Findings:
    with ExitStack() as running:
        tell("starting")
        service = running.enter_context(tidegate(folder / "tidegate", cores))
        room = running.enter_context(store_room(service))
        systems, missing = _start(running, service, task.loads, folder, cores)
        rounds = Rounds(Scene(service, systems, room, folder), systems, cores)
        samples = []
        for number in range(1, task.rounds + 1):
            for connections in task.connections:
                for load in systems:
                    tell(f"round {number} of {task.rounds}: {load}, {connections} connections")
                    samples.append(rounds.take(number, load, connections, task.seconds))
        findings = Findings(samples=samples, missing=missing)
        if Group.LATENCY in task.groups:
            findings = replace(findings, paced=_pace(task, rounds, findings, tell))
        if task.profile:
            tell("sampling the API")
            with profiled(service.system.pid, task.seconds, cores.load) as shares:
                rounds.take(0, Load.ISSUE, max(task.connections), task.seconds)
            findings = replace(findings, profile=shares)
        return findings


def _start(
    running: ExitStack, service: Tidegate, loads: tuple[Load, ...], folder: Path, cores: Cores
) -> tuple[dict[Load, System], dict[Load, str]]:
    """The system of every load that can be run, and why the others cannot."""
    systems = dict.fromkeys(loads, service.system)
    missing = {}
    for load in OTHERS.keys() & set(loads):
        try:
            systems[load] = running.enter_context(OTHERS[load](folder / load.name.lower(), cores))
        except CommandError as error:
            if load not in WAYS_OUT:
                raise
            del systems[load]
            missing[load] = f"{error}: {WAYS_OUT[load]}"
    return systems, missing


def _pace(task: Task, rounds: Rounds, findings: Findings, tell: Tell) -> list[Paced]:
    paced = []
    for number in range(1, task.rounds + 1):
        for connections in task.connections:
            peak = findings.middle(Load.ISSUE, connections, lambda sample: sample.per_second) or 0.0
            tell(f"round {number} of {task.rounds}: half of the peak, {connections} connections")
            paced.append(rounds.take_pace(number, connections, peak * PEAK_SHARE, task.seconds))
    return paced


def _weigh(task: Task, findings: Findings, folder: Path, cores: Cores, tell: Tell) -> Findings:
    with ExitStack() as running:
        tell("starting")
        young, grown = (_scale(running, folder / name, cores) for name in ("young", "grown"))
        running.enter_context(pinned(cores.service))
        if Group.IDLE in task.groups:
            tell("issuing when idle")
            open_campaign(young.service.remote, IDLE)
            rounds = range(1, task.rounds + 1)
            findings = replace(findings, idle=[Idle(number, *young.room.idle_us(IDLE, number)) for number in rounds])
            young.check(IDLE, task.rounds * IDLE_ISSUES)
        if Group.MEMORY in task.groups:
            growth = weigh(young, grown, task.coupons, lambda issued: tell(f"weighing {issued:,} coupons"))
            findings = replace(findings, growth=growth)
    return findings


def _scale(running: ExitStack, folder: Path, cores: Cores) -> Scale:
    service = running.enter_context(tidegate(folder, cores))
    return Scale(service, running.enter_context(store_room(service)))
