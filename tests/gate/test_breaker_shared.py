import asyncio
from pathlib import Path

import pytest

from service.domain.breaker import BreakerRecord, Issuance, Mode, State
from service.domain.ramp import ALL
from service.domain.saturation import Signal
from service.store import keys
from service.store.breaker_state import WHOLE, Ballot, Proposal
from service.store.client import connect
from service.store.scripts import StoreError
from tests.gate.tide import CLOCK, POLICY, Store, Tide, eventually, run


def test_a_flood_pauses_issuance_in_every_replica_and_its_end_reopens_it_by_the_ramp(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one, other = tide.replica("one"), tide.replica("other")
        transitions: list[tuple[State, State, str, float]] = []
        other.breaker.on_transition.append(
            lambda transition: transitions.append(
                (
                    transition.before.state,
                    transition.after.state,
                    transition.after.reason,
                    transition.sample[Signal.QUEUE_WAIT],
                )
            )
        )
        await tide.turn(one, other, seconds=1)
        assert one.breaker.status().issuance is Issuance.ISSUING
        assert one.breaker.share_permille == ALL

        one.flooded = other.flooded = True
        await tide.turn(one, other, seconds=0.4)
        assert [one.breaker.share_permille, other.breaker.share_permille] == [0, 0]
        assert not one.breaker.admits("spring", "li-wei")
        assert not one.breaker.sheds_alone
        status = one.breaker.status()
        assert (status.issuance, status.reason, status.epoch) == (Issuance.PAUSED, "queue_wait", 1)
        assert tide.store_ms - 200 <= status.since_ms <= tide.store_ms

        one.flooded = other.flooded = False
        shares = []
        for _tenth in range(80):
            await tide.turn(one, other, seconds=0.1)
            shares.append(one.breaker.share_permille)
            assert not any(replica.breaker.sheds_alone for replica in (one, other))
        assert shares == sorted(shares)
        assert {0, ALL} < set(shares)
        assert transitions == [
            (State.CLOSED, State.OPEN, "queue_wait", 2.0),
            (State.OPEN, State.HALF_OPEN, "pause_over", 0.0),
            (State.HALF_OPEN, State.CLOSED, "ramp_over", 0.0),
        ]

    run(story, store)


def test_a_lone_sick_replica_of_three_sheds_by_itself_and_two_pause_all(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one, two, three = tide.replica("one"), tide.replica("two"), tide.replica("three")
        await tide.turn(one, two, three, seconds=0.5)
        one.flooded = True
        await tide.turn(one, two, three, seconds=0.5)
        assert (one.breaker.sheds_alone, one.breaker.share_permille) == (True, 0)
        assert one.breaker.status().issuance is Issuance.PAUSED
        assert [two.breaker.share_permille, three.breaker.share_permille] == [ALL, ALL]
        assert two.breaker.record.state is State.CLOSED

        two.flooded = True
        await tide.turn(one, two, three, seconds=0.5)
        assert [replica.breaker.record.state for replica in (one, two, three)] == [State.OPEN] * 3
        assert three.breaker.share_permille == 0
        assert not any(replica.breaker.sheds_alone for replica in (one, two, three))

    run(story, store)


def test_a_replica_that_sheds_and_feels_well_again_still_counts_while_others_sicken(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one, two, three = tide.replica("one"), tide.replica("two"), tide.replica("three")
        one.flooded = True
        await tide.turn(one, two, three, seconds=0.4)
        one.flooded = False
        await tide.turn(one, two, three, seconds=1.5)
        assert one.breaker.sheds_alone
        assert one.breaker.sample[Signal.QUEUE_WAIT] == 0

        two.flooded = True
        await tide.turn(one, two, three, seconds=0.4)
        assert three.breaker.record.state is State.OPEN

    run(story, store)


def test_a_replica_that_stays_sick_after_the_common_pause_sheds_by_itself(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one, other = tide.replica("one"), tide.replica("other")
        one.flooded = other.flooded = True
        await tide.turn(one, other, seconds=0.4)
        other.flooded = False
        await tide.turn(one, other, seconds=1.5)
        assert (one.breaker.record.state, one.breaker.sheds_alone) == (State.OPEN, False)
        await tide.turn(one, other, seconds=6)
        assert (other.breaker.record.state, other.breaker.share_permille) == (State.CLOSED, ALL)
        assert (one.breaker.sheds_alone, one.breaker.share_permille) == (True, 0)

    run(story, store)


def test_the_operators_word_holds_also_where_a_replica_would_shed_by_itself(store: Store) -> None:
    async def story(tide: Tide) -> None:
        sick, well = tide.replica("sick"), tide.replica("well")
        sick.flooded = True
        await tide.turn(well, sick, seconds=0.5)
        assert sick.breaker.share_permille == 0
        await well.breaker.override(Mode.FORCED_CLOSED, "mei", "a false alarm", ttl_s=None)
        await sick.breaker.tick()
        assert sick.breaker.share_permille == ALL

    run(story, store)


def test_a_replica_that_fell_silent_has_no_vote(store: Store) -> None:
    async def story(tide: Tide) -> None:
        alive, dead = tide.replica("alive"), tide.replica("dead")
        await tide.turn(alive, dead, seconds=5)
        alive.flooded = True
        await tide.turn(alive, seconds=1.5)
        assert alive.breaker.sheds_alone
        await tide.turn(alive, seconds=2)
        assert alive.breaker.record.state is State.OPEN
        assert await tide.client.hkeys(keys.BREAKER_BALLOTS) == [b"alive"]

    run(story, store)


def test_of_two_proposals_on_one_record_exactly_one_wins_and_both_learn_which(store: Store) -> None:
    async def story(tide: Tide) -> None:
        proposals = [BreakerRecord(1, State.OPEN, tide.store_ms, reason) for reason in ("queue_wait", "event_loop_lag")]
        changes = [tide.shared().change(Proposal(WHOLE, 0, proposal, {})) for proposal in proposals]
        in_force = await asyncio.gather(*changes)
        assert in_force[0] == in_force[1]
        assert in_force[0] in proposals
        assert (await tide.shared().pulse("witness", Ballot())).records == {WHOLE: in_force[0]}

    run(story, store)


def test_the_operators_word_holds_here_at_once_and_reaches_a_replica_that_can_only_listen_even_after_a_restart(
    store: Store, tmp_path: Path
) -> None:
    async def story(tide: Tide) -> None:
        nowhere = connect(f"unix://{tmp_path / 'nowhere.sock'}", timeout_ms=100)
        here, there = tide.replica("here"), tide.replica("there", tide.shared(nowhere, tide.client))
        listening = asyncio.create_task(there.breaker.run())
        await tide.someone_listens()
        await here.breaker.override(Mode.FORCED_OPEN, "mei", "the tills are down", ttl_s=60)
        assert (here.breaker.share_permille, here.breaker.status().mode) == (0, Mode.FORCED_OPEN)
        assert here.breaker.status().retry_after_s > 60
        await eventually(lambda: there.breaker.record == here.breaker.record)
        assert there.breaker.share_permille == 0

        store.kill()
        store.start()
        await tide.rise()
        await tide.someone_listens()
        await here.breaker.override(Mode.FORCED_CLOSED, "mei", "a false alarm", ttl_s=None)
        assert (here.breaker.share_permille, here.breaker.status().retry_after_s) == (ALL, 0)
        await eventually(lambda: there.breaker.share_permille == ALL)
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening
        await nowhere.aclose()

    run(story, store)


def test_an_override_expires_by_the_stores_clock_and_what_it_paused_reopens_by_the_ramp(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one = tide.replica("one")
        await tide.turn(one, seconds=0.1)
        await one.breaker.override(Mode.FORCED_OPEN, "mei", "the tills are down", ttl_s=10)
        await tide.turn(one, seconds=9.9)
        assert one.breaker.status().mode == "forced_open"
        await tide.turn(one, seconds=0.2)
        assert one.breaker.status().mode == "auto"
        assert 0 < one.breaker.share_permille < ALL

    run(story, store)


def test_a_store_that_dies_stops_issuance_and_its_return_reopens_it_once(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one = tide.replica("one")
        await one.breaker.override(Mode.AUTO, "mei", "a mark to find again", ttl_s=None)
        await tide.turn(one, seconds=1)
        store.kill()
        await tide.turn(one, seconds=1, stopped=True)
        assert (one.breaker.share_permille, one.breaker.sheds_alone) == (0, True)
        assert one.breaker.status().reason == Signal.STORE_FAILURES
        with pytest.raises(StoreError):
            await one.breaker.override(Mode.FORCED_CLOSED, "mei", "wishful thinking", ttl_s=None)
        await tide.turn(one, seconds=29, stopped=True)
        assert one.own_history == [State.OPEN]

        store.start()
        await tide.rise()
        await tide.turn(one, seconds=10)
        assert one.own_history == [State.OPEN, State.HALF_OPEN, State.CLOSED]
        assert (one.breaker.record.state, one.breaker.share_permille) == (State.CLOSED, ALL)
        assert one.breaker.record.override.actor == "mei"

    run(story, store)


def test_on_the_ramp_a_stable_and_growing_cohort_passes_and_the_others_are_told_their_place(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one, users = tide.replica("one"), [f"user-{number}" for number in range(2_000)]
        one.flooded = True
        await tide.turn_until(one, State.OPEN)
        one.flooded = False
        assert one.breaker.status().retry_after_s in range(4, 7)
        await tide.turn_until(one, State.HALF_OPEN)

        passing: set[str] = set()
        places = {user: tide.now_s + one.breaker.retry_after_s("spring", user) for user in users}
        for _tenth in range(round(POLICY.ramp_ms / 100)):
            now_passing = {user for user in users if one.breaker.admits("spring", user)}
            assert passing <= now_passing
            assert abs(len(now_passing) / 2 - one.breaker.share_permille) < 50
            assert {user for user in users if places[user] <= tide.now_s} <= now_passing
            passing = now_passing
            await tide.turn(one, seconds=0.1)
        assert one.breaker.record.state is State.CLOSED
        assert one.breaker.admits("spring", "anybody")

    run(story, store)


def test_on_the_ramp_nobody_is_sent_away_again_because_the_stores_time_is_known_better(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one, users = tide.replica("one"), [f"user-{number}" for number in range(2_000)]
        await one.breaker.override(Mode.FORCED_OPEN, "mei", "a drill", ttl_s=1)
        await tide.turn_until(one, State.HALF_OPEN)
        await tide.turn(one, seconds=0.5, stopped=True)
        passing = {user for user in users if one.breaker.admits("spring", user)}
        assert passing
        await tide.client.set(CLOCK, tide.store_ms - 500)
        await one.breaker.tick()
        await one.breaker.tick()
        assert passing <= {user for user in users if one.breaker.admits("spring", user)}

        await one.breaker.override(Mode.FORCED_OPEN, "mei", "another drill", None)
        assert one.breaker.refuses_everybody("spring")

    run(story, store)


def test_callers_of_one_millisecond_are_told_by_the_latest_word_and_by_the_stores_clock(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one, other = tide.replica("one"), tide.replica("other")
        listening = asyncio.create_task(one.breaker.run())
        await tide.someone_listens()
        told_s = []
        for ttl_s in (20, 50):
            await other.breaker.override(Mode.FORCED_OPEN, "mei", "a drill", ttl_s)
            await eventually(lambda: one.breaker.record == other.breaker.record)
            told_s.append(one.breaker.retry_after_s("spring", "li-wei"))
        assert told_s[1] == told_s[0] + 30
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening

        await tide.client.set(CLOCK, tide.store_ms + 15_000)
        asking = asyncio.create_task(one.breaker.tick())
        await asyncio.sleep(0)
        assert one.breaker.retry_after_s("spring", "li-wei") == told_s[1]
        await asking
        assert one.breaker.retry_after_s("spring", "li-wei") == told_s[1] - 15

    run(story, store)
