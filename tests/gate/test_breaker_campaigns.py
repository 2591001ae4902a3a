"""One campaign's stampede pauses that campaign, in every replica, and not its neighbours."""

import pytest

from service.domain.breaker import NEVER_CHANGED, Issuance, Mode, State
from service.domain.ramp import ALL
from service.domain.saturation import Signal
from service.store import breaker_state, keys
from service.store.breaker_state import TooManyBreakers
from tests.gate.tide import POLICY, Store, Tide, run

STAMPEDE = {"spring": 2.0, "summer": 0.01}
CALM = {"spring": 0.01, "summer": 0.01}
HOUR_S = 3_600


def test_a_stampede_pauses_its_campaign_everywhere_and_its_neighbour_is_served_all_the_while(store: Store) -> None:
    async def story(tide: Tide) -> None:
        replicas = one, other = tide.replica("one"), tide.replica("other")
        seen: list[tuple[str, State]] = []
        other.breaker.on_transition.append(
            lambda transition: seen.append((transition.campaign_id, transition.after.state))
        )
        one.waits_s = other.waits_s = STAMPEDE
        await tide.turn(*replicas, seconds=0.5)
        assert all(replica.breaker.refuses_everybody("spring") for replica in replicas)
        assert one.breaker.status("spring").issuance is Issuance.PAUSED
        assert one.breaker.status("spring").reason == Signal.QUEUE_WAIT
        assert not one.breaker.sheds_alone
        one.waits_s = other.waits_s = CALM
        for _tenth in range(80):
            await tide.turn(*replicas, seconds=0.1)
            for replica in replicas:
                assert replica.breaker.admits("summer", "ann")
                assert replica.breaker.status("summer").issuance is Issuance.ISSUING
                assert replica.breaker.share_permille == ALL
        assert seen == [("spring", State.OPEN), ("spring", State.HALF_OPEN), ("spring", State.CLOSED)]
        assert one.breaker.record.epoch == 0

    run(story, store)


def test_a_replica_that_alone_has_a_campaigns_stampede_sheds_that_campaign_alone(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one, two, three = tide.replica("one"), tide.replica("two"), tide.replica("three")
        one.waits_s, two.waits_s, three.waits_s = STAMPEDE, CALM, CALM
        await tide.turn(one, two, three, seconds=0.5)
        refusing = [replica.breaker.refuses_everybody("spring") for replica in (one, two, three)]
        assert refusing == [True, False, False]
        assert not one.breaker.sheds_alone
        two.waits_s = STAMPEDE
        await tide.turn(one, two, three, seconds=0.5)
        assert all(replica.breaker.refuses_everybody("spring") for replica in (one, two, three))

    run(story, store)


def test_a_replica_that_died_has_no_vote_in_a_campaigns_matter(store: Store) -> None:
    async def story(tide: Tide) -> None:
        alive, dead = tide.replica("alive"), tide.replica("dead")
        alive.waits_s = dead.waits_s = CALM
        await tide.turn(alive, dead, seconds=1)
        alive.waits_s = STAMPEDE
        await tide.turn(alive, seconds=1)
        assert alive.breaker.campaigns["spring"].record == NEVER_CHANGED
        await tide.turn(alive, seconds=3)
        assert alive.breaker.campaigns["spring"].record.state is State.OPEN

    run(story, store)


def test_a_campaigns_word_survives_the_store_and_the_process_that_heard_it(store: Store) -> None:
    async def story(tide: Tide) -> None:
        gone = tide.replica("gone")
        await gone.breaker.override(Mode.FORCED_OPEN, "mei", "a wrong price", None, "spring")
        store.kill()
        store.start()
        await tide.rise()
        heir = tide.replica("heir")
        await heir.breaker.tick()
        assert heir.breaker.refuses_everybody("spring")
        assert heir.breaker.breaker_status("spring").override.actor == "mei"
        assert not heir.breaker.refuses_everybody("summer")

    run(story, store)


def test_in_shadow_a_campaigns_stampede_is_decided_and_counted_but_nobody_is_refused(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one, users = tide.replica("one"), [f"user-{number}" for number in range(50)]
        counted: list[str] = []
        one.breaker.on_shadow_refusal.append(counted.append)
        await one.breaker.override(Mode.SHADOW, "mei", "let us see", 60, "spring")
        one.waits_s = STAMPEDE
        await tide.turn(one, seconds=0.5)
        assert one.breaker.campaigns["spring"].record.state is State.OPEN
        assert one.breaker.status("spring").issuance is Issuance.ISSUING
        assert all(one.breaker.admits(campaign, user) for user in users for campaign in ("spring", "summer"))
        assert counted == ["spring"] * len(users)
        await tide.turn(one, seconds=60)
        assert one.breaker.refuses_everybody("spring")

    run(story, store)


def test_the_shadow_of_the_whole_falls_on_every_campaign_of_which_nothing_was_said(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one = tide.replica("one")
        counted: list[str] = []
        one.breaker.on_shadow_refusal.append(counted.append)
        await one.breaker.override(Mode.SHADOW, "mei", "let us see", None)
        await one.breaker.override(Mode.FORCED_OPEN, "mei", "a wrong price", None, "summer")
        one.waits_s = STAMPEDE
        await tide.turn(one, seconds=0.5)
        assert one.breaker.admits("spring", "ann")
        assert one.breaker.refuses_everybody("summer")
        assert counted == ["spring"]

    run(story, store)


def test_a_campaigns_record_is_forgotten_once_nothing_about_it_must_be_remembered(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one, other = tide.replica("one"), tide.replica("other")
        one.waits_s = other.waits_s = STAMPEDE
        await tide.turn(one, other, seconds=0.5)
        one.waits_s = other.waits_s = {}
        await tide.turn(one, other, seconds=10)
        assert one.breaker.campaigns["spring"].record.state is State.CLOSED
        assert await tide.client.hlen(keys.BREAKER_STATE) == 2
        tide.now_s += HOUR_S
        await tide.turn(one, other, seconds=0.5)
        assert await tide.client.hlen(keys.BREAKER_STATE) == 0
        assert {circuit.record for replica in (one, other) for circuit in replica.breaker.campaigns.values()} == {
            NEVER_CHANGED
        }
        one.waits_s = other.waits_s = STAMPEDE
        await tide.turn(one, other, seconds=0.5)
        assert one.breaker.campaigns["spring"].record == other.breaker.campaigns["spring"].record
        assert one.breaker.campaigns["spring"].record.epoch == 1

    run(story, store)


def test_where_no_more_campaigns_may_have_a_record_each_replica_guards_the_next_by_itself(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker_state, "MOST_CAMPAIGNS", 1)

    async def story(tide: Tide) -> None:
        one = tide.replica("one")
        await one.breaker.override(Mode.AUTO, "mei", "a mark to find again", None)
        await one.breaker.override(Mode.FORCED_CLOSED, "mei", "the only one", None, "autumn")
        with pytest.raises(TooManyBreakers):
            await one.breaker.override(Mode.FORCED_OPEN, "mei", "a wrong price", None, "summer")
        one.waits_s = STAMPEDE
        await tide.turn(one, seconds=0.5)
        assert one.breaker.refuses_everybody("spring")
        assert one.breaker.campaigns["spring"].record.epoch == 0
        assert one.breaker.record.override.actor == "mei"

    run(story, store)


def test_whoever_is_told_a_campaigns_place_waits_for_that_campaigns_ramp(store: Store) -> None:
    async def story(tide: Tide) -> None:
        one = tide.replica("one")
        one.waits_s = STAMPEDE
        await tide.turn(one, seconds=0.5)
        most_s = (POLICY.minimum_pause_ms * 1.1 + POLICY.ramp_ms) / 1000 + 2
        for user in ("ann", "bob", None):
            assert 1 <= one.breaker.retry_after_s("spring", user) <= most_s
        assert one.breaker.turn_due_in_ms("spring", 0, 10.0) > 0
        assert one.breaker.turn_due_in_ms("summer", 0, 10.0) == 0

    run(story, store)
