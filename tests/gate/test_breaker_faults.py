"""Links that drop, stores that stop, and what the store says of itself, over real servers."""

import asyncio
import time
from pathlib import Path

import pytest

from service.domain.breaker import BreakerPolicy, BreakerRecord, Issuance, Mode, State
from service.domain.ramp import ALL
from service.domain.saturation import Signal
from service.gate.breaker import Breaker
from service.gate.circuits import Circuits
from service.gate.signals import Signals
from service.store import breaker_state, keys
from service.store.breaker_state import Ballot, SharedBreakerState
from service.store.client import connect
from service.store.jobs import JobQueue
from service.store.vitals import Vitals, VitalSigns
from tests.gate.tide import POLICY, Store, Tide, eventually, run

WELL = Vitals(at_ms=0, memory_bytes=50, memory_max_bytes=100, delayed_fsyncs=0, oldest_job_s=0.0)


class DeafPath:
    """A way to the store that can stop carrying anything, without either side being told."""

    def __init__(self, store_url: str, socket: Path) -> None:
        self._target = store_url.removeprefix("unix://")
        self._socket = socket
        self.url = f"unix://{socket}"
        self.carries = asyncio.Event()
        self.carries.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_unix_server(self._connected, self._socket)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, here = await asyncio.open_unix_connection(self._target)
        for ends in ((reader, here), (there, writer)):
            self._tasks.add(asyncio.create_task(self._carry(*ends)))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self.carries.wait()
                writer.write(data)
        finally:
            writer.close()


def test_a_link_that_drops_costs_a_poll_and_a_link_that_went_deaf_is_made_anew(store: Store, tmp_path: Path) -> None:
    async def story(tide: Tide) -> None:
        path = DeafPath(store.url, tmp_path / "deaf.sock")
        await path.open()
        ears = connect(path.url, timeout_ms=500)
        here, there = tide.replica("here"), tide.replica("there", tide.shared(tide.client, ears))
        listening = asyncio.create_task(there.breaker._keep_listening())
        await tide.someone_listens()
        await tide.client.client_kill_filter(_type="pubsub")
        await here.breaker.override(Mode.FORCED_OPEN, "mei", "a drill", None)
        await there.breaker.tick()
        assert there.breaker.share_permille == 0

        await tide.someone_listens()
        path.carries.clear()
        await here.breaker.override(Mode.FORCED_CLOSED, "mei", "over", None)
        await there.breaker.tick()
        assert there.breaker.share_permille == ALL
        path.carries = asyncio.Event()
        path.carries.set()

        async def hears_again() -> bool:
            await here.breaker.override(Mode.FORCED_OPEN, "mei", "another drill", None)
            await asyncio.sleep(0.05)
            return there.breaker.record == here.breaker.record

        deadline_s = time.monotonic() + 10
        while not await hears_again():
            assert time.monotonic() < deadline_s, "it stays deaf"
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await ears.aclose()
        await path.close()

    run(story, store)


def test_a_store_that_stops_turns_people_away_at_once_and_pauses_if_it_lasts(store: Store) -> None:
    async def story(tide: Tide) -> None:
        shared = SharedBreakerState(tide.client)
        breakers = [Breaker(Signals(), shared, POLICY, name) for name in ("one", "other")]
        for breaker in breakers:
            await breaker.tick()
        running = [asyncio.create_task(breaker.run()) for breaker in breakers]
        await asyncio.sleep(0.3)
        store.suspend()
        await eventually(lambda: all(not breaker.share_permille for breaker in breakers))
        assert all(breaker.record.state is State.CLOSED for breaker in breakers)
        await eventually(lambda: all(breaker.own_record.state is State.OPEN for breaker in breakers))
        assert breakers[0].own_record.reason in (Signal.STORE_SILENCE, Signal.STORE_TIMEOUTS, Signal.STORE_FAILURES)
        store.resume()
        await eventually(lambda: all(breaker.record.state is State.OPEN for breaker in breakers))
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    run(story, store)


def test_a_silence_of_half_a_second_costs_as_much_and_no_pause(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one = tide.replica("one")
        told: list[Issuance] = []
        one.breaker.on_told_hold.append(lambda: told.append(one.breaker.status("spring").issuance))
        await tide.turn(one, seconds=0.5)
        for silence_s in (0.1, 0.2, 0.3, 0.4, 0.5):
            one.breaker._asking_since_s = tide.now_s + 0.1 - silence_s
            tide.now_s += 0.1
            one.breaker._take_sample()
            assert one.breaker.share_permille == (0 if silence_s > 0.15 else ALL)
            assert one.breaker.own_record.state is State.CLOSED
        assert told == [Issuance.PAUSED]
        status = one.breaker.status()
        assert (status.reason, 1 <= status.retry_after_s <= 4) == (Signal.STORE_SILENCE, True)
        assert one.breaker.store_now_ms - status.since_ms in (499, 500)
        tide.now_s += 0.15
        one.breaker._take_sample()
        assert one.breaker.status().since_ms == status.since_ms
        assert 1 <= one.breaker.retry_after_s("spring") <= 4
        one.breaker._asking_since_s = None
        await tide.turn(one, seconds=1.0)
        assert (one.breaker.share_permille, one.breaker.own_record.epoch) == (ALL, 0)
        assert told == [Issuance.PAUSED, Issuance.ISSUING]

    run(story, store)


def test_a_silence_that_nobody_could_read_of_is_not_told(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one = tide.replica("one")
        told: list[Issuance] = []
        one.breaker.on_told_hold.append(lambda: told.append(one.breaker.status().issuance))
        await tide.turn(one, seconds=0.5)
        one.breaker._asking_since_s = tide.now_s - 0.06
        tide.now_s += 0.1
        one.breaker._take_sample()
        assert (one.breaker.share_permille, one.breaker.status().issuance) == (0, Issuance.ISSUING)
        one.breaker._asking_since_s = None
        await tide.turn(one, seconds=0.2)
        assert (one.breaker.share_permille, told) == (ALL, [])

    run(story, store)


def test_on_a_ramp_a_hold_tells_nobody_to_come_back_before_his_place() -> None:
    circuits = Circuits(Signals(), BreakerPolicy(), clock=lambda: 100.0, draw=lambda: 0.9)
    circuits.whole.adopt(BreakerRecord(1, State.HALF_OPEN, circuits.store_now_ms, "pause_over"))
    on_ramp = circuits.status()
    circuits._note_silence(0.4)
    held = circuits.status()
    assert (on_ramp.issuance, held.issuance) == (Issuance.RECOVERING, Issuance.PAUSED)
    assert held.retry_after_s == on_ramp.retry_after_s == 27


def test_where_the_operator_decides_a_silence_holds_nobody(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one = tide.replica("one")
        await one.breaker.override(Mode.FORCED_CLOSED, "mei", "I know this disk", None)
        one.breaker._asking_since_s = tide.now_s - 0.5
        tide.now_s += 0.1
        one.breaker._take_sample()
        assert (one.breaker.share_permille, one.breaker.status().issuance) == (ALL, Issuance.ISSUING)

    run(story, store)


def test_one_replica_reads_the_stores_vital_signs_for_all_and_not_more_often_than_once_a_second(store: Store) -> None:
    async def story(tide: Tide) -> None:
        replicas = [tide.replica(name) for name in ("one", "two", "three")]
        for replica in replicas:
            replica.vitals = WELL
        await tide.turn(*replicas, seconds=5)
        assert 5 <= sum(replica.vitals_read for replica in replicas) <= 6
        assert all(replica.breaker.sample[Signal.STORE_MEMORY] == 0.5 for replica in replicas)

    run(story, store)


async def paused_by(tide: Tide, vitals: Vitals) -> str:
    replica = tide.replica("one")
    replica.vitals = WELL
    await tide.turn(replica, seconds=1.2)
    assert replica.breaker.record.state is State.CLOSED
    replica.vitals = vitals
    await tide.turn(replica, seconds=2)
    return replica.breaker.record.reason


def test_a_store_that_is_nearly_full_pauses_all_without_a_vote(store: Store) -> None:
    async def story(tide: Tide) -> None:
        full = Vitals(0, memory_bytes=97, memory_max_bytes=100, delayed_fsyncs=0, oldest_job_s=0.0)
        assert await paused_by(tide, full) == Signal.STORE_MEMORY

    run(story, store)


def test_a_disk_that_cannot_follow_pauses_all(store: Store) -> None:
    async def story(tide: Tide) -> None:
        slow = Vitals(0, memory_bytes=5, memory_max_bytes=0, delayed_fsyncs=9, oldest_job_s=0.0)
        assert await paused_by(tide, slow) == Signal.STORE_DISK_DELAY

    run(story, store)


def test_jobs_that_nobody_works_off_pause_all(store: Store) -> None:
    async def story(tide: Tide) -> None:
        stuck = Vitals(0, memory_bytes=5, memory_max_bytes=0, delayed_fsyncs=0, oldest_job_s=1_000.0)
        assert await paused_by(tide, stuck) == Signal.JOB_WAIT

    run(story, store)


def test_vital_signs_that_nobody_could_read_for_long_say_nothing_any_more(store: Store) -> None:
    async def story(tide: Tide) -> None:
        replica = tide.replica("one")
        replica.vitals = Vitals(0, memory_bytes=97, memory_max_bytes=100, delayed_fsyncs=0, oldest_job_s=0.0)
        await tide.turn(replica, seconds=2)
        assert replica.breaker.share_permille == 0
        replica.vitals = None
        await tide.turn(replica, seconds=16)
        assert replica.breaker.share_permille == ALL

    run(story, store)


def test_redemptions_that_wait_in_all_replicas_together_are_one_backlog(store: Store) -> None:
    async def story(tide: Tide) -> None:
        for number in range(4):
            await tide.shared().pulse(f"replica-{number}", Ballot({}, 2_048))
        witness = tide.replica("witness")
        await witness.breaker.tick()
        assert witness.breaker.sample[Signal.REDEMPTION_BACKLOG] == 8_192

    run(story, store)


def test_the_store_and_the_queue_say_of_themselves_what_is_asked(store: Store) -> None:
    async def story(tide: Tide) -> None:
        jobs = JobQueue(store.url)
        await tide.client.config_set("maxmemory", 10**9)
        vitals = await VitalSigns(tide.client, jobs).read(7)
        assert (vitals.at_ms, vitals.memory_max_bytes, vitals.delayed_fsyncs) == (7, 10**9, 0)
        assert 0 < vitals.memory_bytes < 10**9
        assert vitals.oldest_job_s == 0.0
        assert Vitals.from_json(vitals.to_json()) == vitals
        assert Vitals.from_json('{"added_later": 1}') is None
        jobs.close()

    run(story, store)


def test_the_history_of_transitions_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breaker_state, "MOST_ENTRIES", 200)

    async def story(tide: Tide) -> None:
        one = tide.replica("one")
        pipeline = tide.client.pipeline(transaction=False)
        for _entry in range(1_000):
            pipeline.xadd(keys.BREAKER_EVENTS, {"type": "breaker.changed", "data": "{}"})
        await pipeline.execute()
        await one.breaker.override(Mode.FORCED_OPEN, "mei", "a drill", None)
        assert await tide.client.xlen(keys.BREAKER_EVENTS) < 400

    run(story, store)
