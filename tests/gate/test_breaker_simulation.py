"""Thousands of histories of load, faults and restarts: the breakers keep their promises at every step of each."""

import asyncio
import os
from dataclasses import replace
from typing import Final

from service.domain.breaker import BreakerRecord, Mode, State, ramp_of
from service.domain.ramp import ALL
from service.store.breaker_state import BALLOT_SILENT_AFTER_MS, WHOLE
from tests.gate.simulation import CAMPAIGNS, POLICY, STEP_S, Replica, World

HISTORIES: Final = int(os.environ.get("TIDEGATE_SOAK_EXAMPLES", "2000"))
LEGAL: Final = {
    (State.CLOSED, State.OPEN),
    (State.OPEN, State.HALF_OPEN),
    (State.HALF_OPEN, State.OPEN),
    (State.HALF_OPEN, State.CLOSED),
}
NOTICED_WITHIN_S: Final = (POLICY.samples_to_trip + 2) * STEP_S
AGREED_WITHIN_S: Final = 4 * STEP_S
VOTES_COUNT_AFTER_S: Final = BALLOT_SILENT_AFTER_MS / 1000 + NOTICED_WITHIN_S
"""By then nobody who died has a vote any more, and everybody who lives has used his."""
LONGEST_RAMP_S: Final = (POLICY.ramp_ms << POLICY.maximum_ramp_halvings) / 1000
RECOVERED_WITHIN_S: Final = 2 * (POLICY.maximum_pause_ms / 1000 + LONGEST_RAMP_S) + 5
MOST_CHANGES_A_MINUTE: Final = 20
"""Pauses of 2, 4, 8, 8 … seconds fill a minute after nine of them, and each has two changes or, with a ramp, three."""


def test_whatever_happens_the_breakers_keep_their_promises() -> None:
    async def live_all() -> None:
        for seed in range(HISTORIES):
            try:
                await live(World(seed))
            except AssertionError as error:
                raise AssertionError(f"the history of seed {seed}: {error}") from error

    asyncio.run(live_all())


async def live(world: World) -> None:
    epochs: dict[tuple[str, str], int] = {}
    while world.store.now_s < world.faults_until_s + RECOVERED_WITHIN_S:
        seen = len(world.store.history)
        await world.step()
        for _at_s, _campaign_id, before, after in world.store.history[seen:]:
            assert_legal(before, after)
        for replica in world.replicas:
            assert_keeps_its_promises(world, replica)
            assert_epochs_only_grow(replica, epochs)
        assert_agreement(world)
        assert_all_pause_together(world)
        if world.store.now_s > world.faults_until_s + 1 and is_open_everywhere(world):
            break
    assert is_open_everywhere(world), "all was well for long enough, but not everybody is served"
    assert_calm(world)


def assert_legal(before: BreakerRecord, after: BreakerRecord) -> None:
    assert after.epoch == before.epoch + 1
    if after.reason == "operator" or after.override != before.override:
        return
    if after.state is before.state:
        # An operator who said the same word again.
        assert after == replace(before, epoch=after.epoch)
        return
    assert before.override.mode.follows_signals
    assert (before.state, after.state) in LEGAL, f"{before} {after}"
    if before.state is State.OPEN:
        assert after.since_ms - before.since_ms >= before.pause_ms
    if after.state is State.OPEN:
        assert POLICY.minimum_pause_ms <= after.pause_ms <= POLICY.maximum_pause_ms
    if (before.state, after.state) == (State.HALF_OPEN, State.OPEN):
        assert after.ramp_halvings == min(before.ramp_halvings + 1, POLICY.maximum_ramp_halvings)
    if (before.state, after.state) == (State.HALF_OPEN, State.CLOSED):
        assert after.since_ms - before.since_ms >= ramp_of(before, POLICY).length_ms


def assert_keeps_its_promises(world: World, replica: Replica) -> None:
    breaker = replica.breaker
    mode = breaker.record.override.mode
    if mode is Mode.FORCED_OPEN:
        assert breaker.share_permille == 0
    if mode.refuses_nobody:
        assert breaker.share_permille == ALL
    if mode is Mode.AUTO and all(other.sick_s > NOTICED_WITHIN_S for other in world.replicas):
        assert breaker.share_permille == 0, "it issues while all replicas are sick"
    if mode is Mode.AUTO and world.store.state != "up" and replica.sick_s > NOTICED_WITHIN_S:
        assert breaker.share_permille == 0, "it issues without a store"
    for campaign_id in CAMPAIGNS:
        if mode is Mode.FORCED_OPEN:
            assert breaker.refuses_everybody(campaign_id)
        assert breaker.admits(campaign_id, "ann") <= (not breaker.refuses_everybody(campaign_id))


def assert_epochs_only_grow(replica: Replica, epochs: dict[tuple[str, str], int]) -> None:
    for campaign_id in (WHOLE, *CAMPAIGNS):
        epoch = replica.breaker._circuit(campaign_id).record.epoch
        assert epoch >= epochs.get((replica.name, campaign_id), 0)
        epochs[replica.name, campaign_id] = epoch


def assert_agreement(world: World) -> None:
    """Soon after the last fault, and after the last change, all replicas hold the store's records."""
    changed_at_s = world.store.history[-1][0] if world.store.history else 0.0
    since_s = max(world.quiet_since_s, changed_at_s, *(replica.born_s for replica in world.replicas))
    if world.store.state != "up" or world.store.loses_answers or world.store.now_s - since_s < AGREED_WITHIN_S:
        return
    for campaign_id in (WHOLE, *CAMPAIGNS):
        for replica in world.replicas:
            assert replica.breaker._circuit(campaign_id).record == world.store.record(campaign_id)


def assert_all_pause_together(world: World) -> None:
    """Where all live replicas are sick and can say so, the shared breaker is open, also on a ramp and after a pause."""
    record, calm_s = world.store.record(WHOLE), world.store.now_s - world.quiet_since_s
    if world.store.state != "up" or world.store.loses_answers or calm_s < VOTES_COUNT_AFTER_S:
        return
    if record.override.mode.follows_signals and all(other.sick_s > NOTICED_WITHIN_S for other in world.replicas):
        assert record.state is State.OPEN, "all are sick, and the breaker is not open"


def is_open_everywhere(world: World) -> bool:
    return all(
        replica.breaker.share_permille == ALL and not replica.breaker._shares and not replica.breaker._shadows
        for replica in world.replicas
    )


def assert_calm(world: World) -> None:
    """No breaker changes its state more often in a minute than its pauses allow."""
    for campaign_id in (WHOLE, *CAMPAIGNS):
        changes = [
            at_s
            for at_s, changed, before, after in world.store.history
            if changed == campaign_id and before.state is not after.state and after.reason != "operator"
        ]
        for earlier, later in zip(changes, changes[MOST_CHANGES_A_MINUTE:], strict=False):
            assert later - earlier > 60, f"the breaker of {campaign_id or 'the whole'} flaps: {changes}"
